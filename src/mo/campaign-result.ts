import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import { fitsXml, forXml } from '../base/presentable.ts';
import { isOk } from '../dm/status.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';
import { ReturnFormat } from './campaign.ts';

/** A value that a device gave. With the format `b64`, `data` is the base64 of octets; without, it is any text. */
export interface CampaignValue {
  readonly uri: string;
  readonly data: string;
  readonly format?: 'b64' | undefined;
}

/** Outcome of one device. */
export interface DeviceOutcome {
  /** DevId. */
  readonly device: string;
  /** 200, or the first status of the device that is not a success. */
  readonly status: number;
  /** Outcomes of the commands, in their order. */
  readonly parts: readonly {
    readonly status: number;
    readonly results: readonly CampaignValue[];
  }[];
}

/** State of a campaign, numbers of its devices, and the outcomes of the devices that have ended. */
export interface CampaignSummary {
  /** One of `CampaignState`. */
  readonly state: number;
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly pending: number;
  readonly outcomes: readonly DeviceOutcome[];
}

/**
 * The result of a campaign as XML (docs/gwmo.md). Devices with the same statuses are one group, so a thousand devices
 * with the same outcome take one line.
 * @param returnFormat one of `ReturnFormat`: how much the result tells of each device
 */
export function summaryXml(summary: CampaignSummary, returnFormat: number): string {
  const { total, done, failed, pending, outcomes } = summary;
  const groups = Map.groupBy(outcomes, ({ status, parts }) =>
    [status, ...parts.map((part) => part.status)].join(' '),
  );
  const lines = [...groups].map(([key, members]) => {
    const [status = '', ...parts] = key.split(' ');
    const head = `<Group Status="${status}" Commands="${parts.join(' ')}" Count="${members.length}"`;
    const inner = namesDevices(returnFormat, Number(status))
      ? members.map((member) => line(member, returnFormat))
      : [];
    return inner.length === 0 ? `${head}/>` : `${head}>${inner.join('')}</Group>`;
  });
  return `<CampaignResult Total="${total}" Done="${done}" Failed="${failed}" Pending="${pending}">${lines.join('')}</CampaignResult>`;
}

/** Whether the result names the devices of a group with this status. */
const namesDevices = (format: number, status: number): boolean =>
  format === ReturnFormat.Full ||
  format === ReturnFormat.Grouped ||
  (format === ReturnFormat.Failures && !isOk(status));

function line({ device, parts }: DeviceOutcome, format: number): string {
  const results =
    format === ReturnFormat.Full
      ? parts.flatMap((part, at) =>
          part.results.map(({ uri, data, format: given }) => {
            const which = at === 0 ? '' : ` Command="${at}"`;
            const at64 = given || !fitsXml(data) ? ' Format="b64"' : '';
            const value = fitsXml(data) ? escapeXml(data) : Buffer.from(data).toString('base64');
            return `<Result URI="${escapeXml(forXml(uri))}"${which}${at64}>${value}</Result>`;
          }),
        )
      : [];
  const head = `<Device ID="${escapeXml(forXml(device))}"`;
  return results.length === 0 ? `${head}/>` : `${head}>${results.join('')}</Device>`;
}

/** The complete outcome of one device as XML. */
export const detailXml = (outcome: DeviceOutcome): string =>
  `<DeviceResult Status="${outcome.status}" Commands="${outcome.parts.map(({ status }) => status).join(' ')}">${line(outcome, ReturnFormat.Full)}</DeviceResult>`;

/** Bounds of a result that is read. `commands` and `results` are those of one device. */
const resultLimits = { characters: 1024 * 1024, devices: 1024, commands: 256, results: 4096 } as const;

/**
 * Reads the result of another gateway's campaign, as `summaryXml` writes it. Returns the outcomes of the devices that
 * it names.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function readResult(xml: string): DeviceOutcome[] {
  const bounded = (count: number, what: 'characters' | 'devices' | 'commands' | 'results') => {
    if (count > resultLimits[what]) throw new PosternError('tooLarge', `a result of too many ${what}`);
  };
  bounded(xml.length, 'characters');
  const outcomes: DeviceOutcome[] = [];
  let group = { status: 0, parts: [] as number[] };
  let results: { uri: string; data: string; part: number; format?: 'b64' }[] = [];
  let device = '';
  const parser = new SaxesParser({ xmlns: false, position: false });
  parser.on('error', ({ message }) => {
    throw new PosternError('malformed', `not the result of a campaign: ${message}`);
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
        ...(attributes.Format === 'b64' && { format: 'b64' }),
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
        results: (byPart.get(at) ?? []).map(({ part: _, ...value }) => value),
      })),
    });
  });
  parser.write(xml).close();
  return outcomes;
}
