import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import { fitsXml, forXml } from '../base/presentable.ts';
import { isOk } from '../dm/status.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';
import { ReturnFormat } from './campaign.ts';

/** What one device came to: 200, or the first status that is no success, and what each command came to. */
export interface DeviceOutcome {
  readonly device: string;
  readonly status: number;
  readonly parts: readonly {
    readonly status: number;
    readonly results: readonly { readonly uri: string; readonly data: string }[];
  }[];
}

/** How a campaign stands, and what each device that ended came to. */
export interface CampaignSummary {
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
export function summaryXml(summary: CampaignSummary, returnFormat: number): string {
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
  return `<CampaignResult Total="${total}" Done="${done}" Failed="${failed}" Pending="${pending}">${lines.join('')}</CampaignResult>`;
}

const saysWho = (format: number, status: number): boolean =>
  format === ReturnFormat.Full ||
  format === ReturnFormat.Grouped ||
  (format === ReturnFormat.Failures && !isOk(status));

function line({ device, parts }: DeviceOutcome, format: number): string {
  const results =
    format === ReturnFormat.Full
      ? parts.flatMap((part, at) =>
          part.results.map(({ uri, data }) => {
            const which = at === 0 ? '' : ` Command="${at}"`;
            const at64 = fitsXml(data) ? '' : ' Format="b64"';
            const value = fitsXml(data) ? escapeXml(data) : Buffer.from(data).toString('base64');
            return `<Result URI="${escapeXml(forXml(uri))}"${which}${at64}>${value}</Result>`;
          }),
        )
      : [];
  const head = `<Device ID="${escapeXml(forXml(device))}"`;
  return results.length === 0 ? `${head}/>` : `${head}>${results.join('')}</Device>`;
}

/** All that one device said. */
export const detailXml = (outcome: DeviceOutcome): string =>
  `<DeviceResult Status="${outcome.status}" Commands="${outcome.parts.map(({ status }) => status).join(' ')}">${line(outcome, ReturnFormat.Full)}</DeviceResult>`;

/** What a result that is read may have: characters, devices, commands of a device and results of one. */
const resultLimits = { characters: 1024 * 1024, devices: 1024, commands: 256, results: 4096 } as const;

/**
 * Reads a result of another gateway, as `summaryXml` wrote it: what each device came to that it names.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function readResult(xml: string): DeviceOutcome[] {
  const bounded = (count: number, what: 'characters' | 'devices' | 'commands' | 'results') => {
    if (count > resultLimits[what]) throw new PosternError('tooLarge', `a result of too many ${what}`);
  };
  bounded(xml.length, 'characters');
  const outcomes: DeviceOutcome[] = [];
  let group = { status: 0, parts: [] as number[] };
  let results: { uri: string; data: string; part: number; isBase64: boolean }[] = [];
  let device = '';
  const parser = new SaxesParser({ xmlns: false, position: false });
  parser.on('error', ({ message }) => {
    throw new PosternError('malformed', `no result of a campaign: ${message}`);
  });
  parser.on('doctype', () => {
    throw new PosternError('malformed', 'a document type is not allowed');
  });
  parser.on('opentag', ({ name, attributes }) => {
    if (name === 'Group') {
      const parts = (attributes.Commands ?? '').split(' ').filter((part) => part !== '');
      bounded(parts.length, 'commands');
      group = { status: Number(attributes.Status), parts: parts.map(Number) };
    } else if (name === 'Device') {
      device = attributes.ID ?? '';
      results = [];
    } else if (name === 'Result') {
      bounded(results.length + 1, 'results');
      results.push({
        uri: attributes.URI ?? '',
        data: '',
        part: Number(attributes.Command ?? 0),
        isBase64: attributes.Format === 'b64',
      });
    }
  });
  parser.on('text', (text) => {
    const open = results.at(-1);
    if (open) open.data += text;
  });
  parser.on('closetag', ({ name }) => {
    if (name !== 'Device' || !Number.isInteger(group.status)) return;
    bounded(outcomes.length + 1, 'devices');
    const byPart = Map.groupBy(results, ({ part }) => part);
    outcomes.push({
      device,
      status: group.status,
      parts: group.parts.map((status, at) => ({
        status,
        results: (byPart.get(at) ?? []).map(({ uri, data, isBase64 }) => ({
          uri,
          data: isBase64 ? Buffer.from(data, 'base64').toString() : data,
        })),
      })),
    });
  });
  parser.write(xml).close();
  return outcomes;
}
