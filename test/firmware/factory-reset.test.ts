// A factory reset at an emulated board, the long form: by a file on CONFIG, with the power cut in the middle.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import { mebibyte, startOf } from '../../firmware-image/recipe/layout.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor, versions } from './images.ts';

const limit = { timeout: 900_000 };
const devices = ['urn:dev:ops:1'] as const;
const config = (disk: string) => `${disk}@@${startOf('config') * mebibyte}`;

describe('a factory reset at the board', {
  skip: process.env.POSTERN_FIRMWARE !== 'long',
  timeout: 1_800_000,
}, () => {
  let image: BuiltImage;
  before(async () => {
    image = await buildFor('first', versions.first, { withDisk: true });
  });

  /** A board with a device, switched off. */
  async function used(): Promise<Field> {
    const field = await Field.prepare({ image, files: {}, devices });
    await field.runOnce(devices[0]);
    return field;
  }

  test(
    'by a file on CONFIG: nothing of the time before is left, the slots stay, and a power cut does not stop it',
    limit,
    async () => {
      await using field = await used();
      const { board } = field;
      const { machine, disk } = board;
      const empty = join(board.folder, 'factory-reset');
      writeFileSync(empty, '');
      run('mcopy', ['-i', config(disk), empty, '::factory-reset']);
      const again = join(board.folder, 'again.toml');
      writeFileSync(
        again,
        '[gateway]\nid = "gw-2"\n[coap]\ninsecure-plain-coap = true\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[dm-server]\nid = "dm.example"\n[provision]\ninsecure-plain-secrets = true\n',
      );
      const begun = machine.says(/factory reset: all data of this board are deleted/, patience.start);
      machine.start();
      await begun;
      await machine.says(/Starting kernel/, patience.start);
      // The data partition is being made anew, or will be.
      await machine.cutPower();
      assert.doesNotMatch(run('mdir', ['-b', '-i', config(disk)]), /factory-reset/);
      run('mcopy', ['-i', config(disk), again, '::gateway.toml']);
      const started = board.event('gateway.started', patience.start);
      machine.start();
      const { gateway, devices: count } = await started;
      assert.deepEqual([gateway, count], ['gw-2', 0]);
      assert.doesNotMatch(machine.serial.slice(-60).join('\n'), /second copy .* is used/);
      assert.equal(board.bootState().good, 'A');
    },
  );

  test('a file that cannot be deleted resets nothing', limit, async () => {
    await using field = await used();
    const { board } = field;
    run('mmd', ['-i', config(board.disk), '::factory-reset']);
    const refused = board.machine.says(/cannot be deleted from CONFIG, so nothing is reset/, patience.start);
    await board.start();
    await refused;
    assert.equal(String((await field.seen()).devices).split('/').length, 1);
  });
});
