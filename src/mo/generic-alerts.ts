import { AlertCode, DmStatus } from '../dm/status.ts';
import type { Alert } from '../wire/syncml/message.ts';

/**
 * Status of a client's alert that a server has no use for (OMA DM protocol 1.2.1, section 8.7): 200 for a client event, whose
 * code says all, 406 for another code than that of a generic alert, 412 for a generic alert without an item, a type or a format, and 415 for one of an unknown type.
 */
export function statusOfOtherAlert({ data, items: [item] }: Alert): number {
  if (data === AlertCode.ClientEvent) return DmStatus.Ok;
  if (data !== AlertCode.Generic) return DmStatus.OptionalFeatureNotSupported;
  const { type, format } = item?.meta ?? {};
  return type && format ? DmStatus.UnsupportedMediaType : DmStatus.IncompleteCommand;
}
