import { isNodeFormat } from '../wire/syncml/tnds.ts';
import type { OperationOutcome } from './server-session.ts';

/** What a Get found, as JSON and XML can hold it. */
export interface ShownResult {
  readonly uri: string;
  /** Format of the node. `bin` is octets, and `data` their base64. `node` is an interior node, and `data` the names of its children, joined by `/`. */
  readonly format: string;
  /** MIME type, or the identifier of a management object, if the device said one. */
  readonly type?: string;
  readonly data: string;
}

/** Characters of a type beyond which it is left out. */
const longestType = 128;

/**
 * A result of a device as text. Its format is one of DM's (OMA DM tree and description 1.2.1, section 7.7.3): what a device says is
 * believed, except that text is never `bin`, octets are nothing else, and a format that DM does not have is `chr`.
 */
export function shownResult({ uri, format, type, data }: OperationOutcome['results'][number]): ShownResult {
  const isOctets = typeof data !== 'string';
  const said = isNodeFormat(format) && (format !== 'bin' || data.length === 0) ? format : 'chr';
  return {
    uri,
    format: isOctets ? 'bin' : said,
    ...(type !== undefined && type.length <= longestType && { type }),
    data: isOctets ? Buffer.from(data).toString('base64') : data,
  };
}
