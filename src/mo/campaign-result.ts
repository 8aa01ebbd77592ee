import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import { fitsXml, forXml } from '../base/presentable.ts';
import type { ShownResult } from '../dm/shown-result.ts';
import { isOk } from '../dm/status.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';
import { isNodeFormat } from '../wire/syncml/tnds.ts';
import { ReturnFormat } from './campaign.ts';

/** A value that a device gave. */
export interface CampaignValue {
  readonly uri: string;
  readonly data: string;
  /** DM format, `chr` if absent. With `b64`, `data` is the base64 of octets. With `node`, it is the names of children, joined by `/`. */
  readonly format?: string | undefined;
  /** Type that the device said, if it is not `text/plain`. Octets of type `text/plain` are a text that XML cannot hold. */
  readonly type?: string | undefined;
}

const plainText = 'text/plain';

/** A result of a device as a campaign keeps it. */
export const campaignValue = ({ uri, format, type, data }: ShownResult): CampaignValue => ({
  uri,
  data,
  ...(format !== 'chr' && { format: format === 'bin' ? 'b64' : format }),
  ...(type !== undefined && (type !== plainText || format === 'bin') && { type }),
});

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
          part.results.map((result) => {
            const { uri, data, format, type } = fitsXml(result.data) ? result : inBase64(result);
            const attributes = Object.entries({
              URI: uri,
              ...(at > 0 && { Command: String(at) }),
              ...(format !== undefined && { Format: format }),
              ...(type !== undefined && { Type: type }),
            }).map(([name, value]) => ` ${name}="${escapeXml(forXml(value))}"`);
            return `<Result${attributes.join('')}>${escapeXml(data)}</Result>`;
          }),
        )
      : [];
  const head = `<Device ID="${escapeXml(forXml(device))}"`;
  return results.length === 0 ? `${head}/>` : `${head}>${results.join('')}</Device>`;
}

const inBase64 = ({ uri, data }: CampaignValue): CampaignValue => ({
  uri,
  data: Buffer.from(data).toString('base64'),
  format: 'b64',
  type: plainText,
});

/** The complete outcome of one device as XML. */
export const detailXml = (outcome: DeviceOutcome): string =>
  `<DeviceResult Status="${outcome.status}" Commands="${outcome.parts.map(({ status }) => status).join(' ')}">${line(outcome, ReturnFormat.Full)}</DeviceResult>`;

const isFormat = (format: string | undefined): format is string =>
  format !== undefined && (format === 'b64' || isNodeFormat(format));

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
  let results: (CampaignValue & { data: string; readonly part: number })[] = [];
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
        ...(isFormat(attributes.Format) && { format: attributes.Format }),
        ...(attributes.Type !== undefined && { type: attributes.Type }),
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
