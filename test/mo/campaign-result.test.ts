import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CampaignValue,
  campaignValue,
  type DeviceOutcome,
  readResult,
  summaryXml,
} from '../../src/mo/campaign-result.ts';

const summary = (outcomes: readonly DeviceOutcome[]) => ({
  state: 2,
  total: outcomes.length,
  done: outcomes.length,
  failed: 0,
  pending: 0,
  outcomes,
});

test('the outcomes of devices are the same after encoding and decoding; a result of numbers alone has none', () => {
  const outcomes: DeviceOutcome[] = [
    { device: 'urn:dev:<1>', status: 200, parts: [] },
    {
      device: 'urn:dev:2',
      status: 405,
      parts: [
        { status: 200, results: [{ uri: './A', data: 'x & y' }] },
        { status: 405, results: [] },
        {
          status: 200,
          results: [
            { uri: './B', data: '' },
            { uri: './C', data: '<z/>' },
          ],
        },
      ],
    },
  ];
  assert.deepEqual(readResult(summaryXml(summary(outcomes), 0)), outcomes);
  assert.deepEqual(readResult(summaryXml(summary(outcomes), 1)), [], 'numbers alone name nobody');
});

const valuesOf = (...results: readonly CampaignValue[]) => [
  { device: 'd', status: 200, parts: [{ status: 200, results }] },
];

test('formats and types of values are the same after encoding and decoding', () => {
  const outcomes = valuesOf(
    { uri: './i', data: '5', format: 'int' },
    { uri: './b', data: 'true', format: 'bool' },
    { uri: './f', data: '21.5', format: 'float' },
    { uri: './t', data: '120000', format: 'time' },
    { uri: './n', data: 'a/b', format: 'node', type: 'urn:oma:mo:oma-dm-x:1.0' },
    { uri: './o', data: 'AAE=', format: 'b64', type: 'image/png' },
    { uri: './s', data: '5' },
  );
  assert.deepEqual(readResult(summaryXml(summary(outcomes), 0)), outcomes);
});

test('a text that XML cannot hold is base64 of type text/plain, on each gateway that passes it on', () => {
  const text = 'a\0b';
  const xml = summaryXml(summary(valuesOf({ uri: './s', data: text })), 0);
  const read = readResult(xml);
  const data = Buffer.from(text).toString('base64');
  assert.deepEqual(read, valuesOf({ uri: './s', data, format: 'b64', type: 'text/plain' }));
  assert.equal(summaryXml(summary(read), 0), xml);
});

test('of a child of an earlier version octets are known by Format b64; a format that DM does not have is none', () => {
  const xml = (attributes: string) =>
    `<CampaignResult><Group Status="200" Commands="200"><Device ID="d"><Result URI="./o"${attributes}>AAE=</Result></Device></Group></CampaignResult>`;
  assert.deepEqual(readResult(xml(' Format="b64"')), valuesOf({ uri: './o', data: 'AAE=', format: 'b64' }));
  assert.deepEqual(readResult(xml(' Format="evil"')), valuesOf({ uri: './o', data: 'AAE=' }));
});

test('a result of a device is kept with what tells its value from a text', () => {
  const kept = (format: string, type?: string) =>
    campaignValue({ uri: './a', format, data: 'x', ...(type !== undefined && { type }) });
  assert.deepEqual(kept('chr', 'text/plain'), { uri: './a', data: 'x' });
  assert.deepEqual(kept('chr', 'text/html'), { uri: './a', data: 'x', type: 'text/html' });
  assert.deepEqual(kept('bin'), { uri: './a', data: 'x', format: 'b64' });
  assert.deepEqual(kept('bin', 'text/plain'), { uri: './a', data: 'x', format: 'b64', type: 'text/plain' });
  assert.deepEqual(kept('int', 'text/plain'), { uri: './a', data: 'x', format: 'int' });
});

for (const [what, xml, code] of [
  ['no XML', '<CampaignResult', 'malformed'],
  ['a document type', '<!DOCTYPE x><CampaignResult/>', 'malformed'],
  ['too many characters', 'x'.repeat(1024 * 1024 + 1), 'tooLarge'],
  ['too many devices', `<R><Group Status="200">${'<Device ID="a"/>'.repeat(1025)}</Group></R>`, 'tooLarge'],
  ['too many commands', `<R><Group Status="200" Commands="${'200 '.repeat(257)}"/></R>`, 'tooLarge'],
  [
    'too many results',
    `<R><Group Status="200" Commands="200"><Device ID="a">${'<Result URI="a"/>'.repeat(4097)}</Device></Group></R>`,
    'tooLarge',
  ],
] as const)
  test(`a result with ${what} is refused`, () => {
    assert.throws(() => readResult(xml), { code });
  });
