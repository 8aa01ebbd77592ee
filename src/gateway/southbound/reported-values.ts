import { typeOf } from '../../wire/lwm2m/objects.ts';
import { pathText } from '../../wire/lwm2m/path.ts';
import { type Entry, isWhole } from '../../wire/lwm2m/resource.ts';
import { timeOf } from '../../wire/lwm2m/senml.ts';
import type { ReportedValue } from './observer.ts';

/**
 * The values of a message from a client.
 * @param now milliseconds since 1970, when it came
 */
export const reportedValues = (entries: readonly Entry[], now: number): readonly ReportedValue[] =>
  entries.map((entry) => ({ path: pathText(entry.path), value: valueIn(entry), at: timeOf(entry, now) }));

/** An integer that a number cannot hold is a text in an entry. Octets are copied: they are a part of a datagram. */
function valueIn({ path, value, type = typeOf(path) }: Entry): ReportedValue['value'] {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  return typeof value === 'string' && isWhole(type) && /^-?\d+$/.test(value) ? BigInt(value) : value;
}
