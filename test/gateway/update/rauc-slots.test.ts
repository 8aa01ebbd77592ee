import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { SystemClock } from '../../../src/base/clock.ts';
import { RaucSlots } from '../../../src/gateway/update/rauc-slots.ts';
import { FumoResult } from '../../../src/mo/fumo.ts';

/** Slots of an image in a folder; `answers` is shell that answers a line, with `verb` and `number` set. */
function image(t: TestContext, answers?: string, release = 'version=1.2.3\nboard=qemu-arm64\n') {
  const folder = mkdtempSync(join(tmpdir(), 'postern-rauc-'));
  const agent = join(folder, 'agent');
  mkdirSync(join(agent, 'answers'), { recursive: true });
  writeFileSync(join(folder, 'release'), release);
  writeFileSync(join(folder, 'cmdline'), 'console=ttyAMA0 postern.slot=B rauc.slot=B\n');
  let child: ReturnType<typeof spawn> | undefined;
  if (answers !== undefined) {
    execFileSync('mkfifo', [join(agent, 'ask')]);
    const script = `folder=${agent}/answers; exec 3<>${agent}/ask; echo ready; while read -r verb number <&3; do (${answers}) > ${agent}/answers/.new; mv ${agent}/answers/.new ${agent}/answers/$number; done`;
    child = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  }
  t.after(async () => {
    if (child) {
      const gone = once(child, 'exit');
      child.kill();
      await gone;
    }
    rmSync(folder, { recursive: true });
  });
  const ready = child ? once(child.stdout!, 'data') : Promise.resolve();
  const slots = () =>
    new RaucSlots({
      agent,
      partitions: folder,
      diagnosis: folder,
      bundleFile: join(folder, 'bundle'),
      lists: join(folder, 'revoked.pem'),
      release: join(folder, 'release'),
      kernelArguments: join(folder, 'cmdline'),
      clock: new SystemClock(),
    });
  return { slots, ready, folder };
}

test('slot, version and board are those of the image, and a bundle is described by RAUC', async (t) => {
  const said = '{"compatible":"postern-qemu-arm64","version":"1.3.0","description":"new"}';
  const { slots, ready } = image(t, `echo 'done ${said}'`);
  await ready;
  const found = slots();
  assert.deepEqual([found.current, found.version, found.compatible], ['B', '1.2.3', 'postern-qemu-arm64']);
  assert.deepEqual(await found.inspect(), { compatible: 'postern-qemu-arm64', version: '1.3.0' });
  await found.install();
});

for (const [what, said, result] of [
  ['another authority', 'signature verification failed: certificate verify error', FumoResult.NotValidated],
  ['another board', 'Compatible mismatch: Expected a, got b', FumoResult.Mismatch],
  [
    'a file that is not a bundle',
    'Failed to check bundle: Invalid identifier. Did you pass a valid RAUC bundle?',
    FumoResult.Corrupt,
  ],
  ['a slot that is too small', 'No space left on device', FumoResult.NoRoom],
  ['anything else', 'something broke', FumoResult.Failed],
] as const)
  test(`${what} is refused with ${result} and the message of RAUC`, async (t) => {
    const { slots, ready } = image(t, `echo 'failed ${said}'`);
    await ready;
    await assert.rejects(slots().install(), { result, message: said });
  });

test('the progress of RAUC is reported during an installation', async (t) => {
  const { slots, ready, folder } = image(
    t,
    // Waits until the test has heard of the first half.
    'echo 50 > $folder/.percent; mv $folder/.percent $folder/progress; read -r go < $folder/../../go; echo done',
  );
  execFileSync('mkfifo', [join(folder, 'go')]);
  await ready;
  const told: number[] = [];
  await slots().install((percent) => {
    told.push(percent);
    writeFileSync(join(folder, 'go'), 'on\n');
  });
  assert.deepEqual(told, [50]);
});

test('without the agent of the image an installation fails with that reason', async (t) => {
  const { slots } = image(t);
  await assert.rejects(slots().install(), {
    result: FumoResult.Failed,
    message: /agent of the image does not run/,
  });
});

test('outside the firmware image the setting "rauc" is a configuration error', (t) => {
  assert.throws(
    image(t, undefined, 'NAME=Debian\n').slots,
    /update\.slots: "rauc" is for the firmware image only/,
  );
});
