import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DeviceOutcome, readResult, summaryXml } from '../../src/mo/campaign-result.ts';

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
