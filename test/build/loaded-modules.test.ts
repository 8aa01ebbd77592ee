import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { idleGateway } from '../bench/idle-gateway.ts';

const bundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));

test('an idle gateway with a broker without TLS loads neither TLS nor compression, which take 3.6 MB', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-loaded-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'modules');
  const program = `
    import { writeFileSync } from 'node:fs';
    process.on('exit', () => writeFileSync(${JSON.stringify(file)}, process.moduleLoadList.join('\\n')));`;
  const gateway = await idleGateway([
    '--import',
    `data:text/javascript,${encodeURIComponent(program)}`,
    bundle,
  ]);
  await gateway[Symbol.asyncDispose]();
  const loaded = readFileSync(file, 'utf8').split('\n');
  const has = (name: string) => loaded.includes(`NativeModule ${name}`);
  assert.deepEqual(['sqlite', 'http', 'tls', 'zlib'].map(has), [true, true, false, false]);
});

for (const tls of [false, true])
  test(`the bundle reaches a broker over a WebSocket ${tls ? 'with' : 'without'} TLS, without the parts that it leaves out`, async () => {
    await using _gateway = await idleGateway([bundle], { websocket: true, tls });
  });
