import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packedRegistry } from '../../build/with-registry.ts';
import * as table from '../../src/wire/lwm2m/registry-table.ts';

test('a bundle has the table of the registry as it is made from the package, and small', async () => {
  const code = packedRegistry();
  // 45 KB of text. base64 in gzip takes what the packed octets take.
  const [, licence = ''] = /^\/\*!([\s\S]*?)\*\//.exec(code) ?? [];
  assert.match(licence, /BSD 3-Clause[\s\S]*Nordic Semiconductor/);
  assert.ok(code.length - licence.length < 17_500, String(code.length));
  const { registryTable, ...constants } = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  const { registryTable: made, packageText: _, ...others } = table;
  assert.equal(registryTable(), made());
  assert.deepEqual({ ...constants }, { ...others });
});
