import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shownResult } from '../../src/dm/shown-result.ts';

const shown = (format: string, data: string | Uint8Array, type?: string) => {
  const { uri, ...rest } = shownResult({ uri: './a', format, data, ...(type !== undefined && { type }) });
  assert.equal(uri, './a');
  return rest;
};
const octets = Buffer.of(0, 1);

test('octets are bin in base64, whatever a device says of them, and text never is', () => {
  for (const said of ['bin', 'b64', 'chr', 'xml', 'node', 'evil'])
    assert.deepEqual(shown(said, octets), { format: 'bin', data: 'AAE=' });
  assert.deepEqual(shown('bin', ''), { format: 'bin', data: '' }, 'no octets');
  assert.deepEqual(shown('bin', 'AAE='), { format: 'chr', data: 'AAE=' });
});

test('formats of DM are shown as the device says, others are chr; a type of any length that fits is shown', () => {
  for (const format of ['chr', 'int', 'bool', 'float', 'node', 'xml', 'null', 'date', 'time'])
    assert.deepEqual(shown(format, '1'), { format, data: '1' });
  for (const format of ['', 'b64', 'integer', '__proto__'])
    assert.deepEqual(shown(format, '1'), { format: 'chr', data: '1' });
  assert.deepEqual(shown('chr', '', 'text/html'), { format: 'chr', type: 'text/html', data: '' });
  assert.deepEqual(shown('chr', '', 'x'.repeat(128)).type?.length, 128);
  assert.deepEqual(shown('chr', '', 'x'.repeat(129)), { format: 'chr', data: '' });
});
