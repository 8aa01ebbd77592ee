import { isOk } from '../dm/status.ts';
import { escapeXml } from '../syncml/escape-xml.ts';
import { ReturnFormat } from './gw-fanout.ts';

/** What one device came to: 200, or the first status that is no success, and what each command came to. */
export interface DeviceOutcome {
  readonly device: string;
  readonly status: number;
  readonly parts: readonly {
    readonly status: number;
    readonly results: readonly { readonly uri: string; readonly data: string }[];
  }[];
}

export interface FanoutSummary {
  readonly state: number;
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly pending: number;
  readonly outcomes: readonly DeviceOutcome[];
}

/**
 * The aggregated result, grouped by identical outcome: a thousand devices that did the same take one line. How much is
 * said of each device is the return format's.
 */
export function summaryXml(summary: FanoutSummary, returnFormat: number): string {
  const { total, done, failed, pending, outcomes } = summary;
  const groups = Map.groupBy(outcomes, ({ status, parts }) =>
    [status, ...parts.map((part) => part.status)].join(' '),
  );
  const lines = [...groups].map(([key, members]) => {
    const [status = '', ...parts] = key.split(' ');
    const head = `<Group Status="${status}" Commands="${parts.join(' ')}" Count="${members.length}"`;
    const inner = saysWho(returnFormat, Number(status))
      ? members.map((member) => line(member, returnFormat))
      : [];
    return inner.length === 0 ? `${head}/>` : `${head}>${inner.join('')}</Group>`;
  });
  return `<FanoutResult Total="${total}" Done="${done}" Failed="${failed}" Pending="${pending}">${lines.join('')}</FanoutResult>`;
}

/** What a device says may hold characters that XML has no form for. */
const printable = (text: string): string =>
  text.toWellFormed().replace(/[^\t\n\r\u0020-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd');

const saysWho = (format: number, status: number): boolean =>
  format === ReturnFormat.Full ||
  format === ReturnFormat.Grouped ||
  (format === ReturnFormat.Failures && !isOk(status));

function line({ device, parts }: DeviceOutcome, format: number): string {
  const results =
    format === ReturnFormat.Full
      ? parts.flatMap((part) =>
          part.results.map(
            ({ uri, data }) => `<Result URI="${escapeXml(uri)}">${escapeXml(printable(data))}</Result>`,
          ),
        )
      : [];
  const head = `<Device ID="${escapeXml(device)}"`;
  return results.length === 0 ? `${head}/>` : `${head}>${results.join('')}</Device>`;
}
