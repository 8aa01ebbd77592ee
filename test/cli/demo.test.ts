import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ServiceProcess } from './service-process.ts';

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-demo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('the commands of an operator work beside the demo, or say what to do', {
  timeout: 120_000,
}, async () => {
  const env = { XDG_RUNTIME_DIR: folder };
  await using demo = ServiceProcess.postern(['demo'], env);
  for await (const line of createInterface({ input: demo.child.stdout! }))
    if (line.includes('gw-demo serves devices at')) break;
  const postern = (...args: string[]) => {
    const { stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    });
    return stdout + stderr;
  };
  assert.match(postern('join'), /^join window: closed$/m);
  assert.match(
    postern('join', '--minutes', '5', '--devices', '2'),
    /^join window: open until .* for 2 more/m,
  );
  assert.match(postern('status'), /^join window +OPEN until/m);
  assert.match(postern('join', '--close'), /^join window: closed$/m);
  for (const command of [
    ['update', 'status'],
    ['update', 'cancel'],
    ['backup', join(folder, 'copy.db')],
    ['reset', 'gw-demo'],
  ])
    assert.match(
      postern(...command),
      /this is the demo.*start a gateway \(postern gateway --config FILE\)/,
      command.join(),
    );
  demo.child.kill('SIGTERM');
  assert.equal(await demo.end(), 0);
});
