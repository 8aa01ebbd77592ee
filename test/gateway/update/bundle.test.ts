import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkProgram, readBundle } from '../../../src/gateway/update/bundle.ts';
import { FumoResult } from '../../../src/mo/fumo.ts';
import { makeAuthority } from './signing.ts';

describe('a bundle for slots that are directories', () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-bundle-'));
  const file = join(folder, 'one.bundle');
  after(() => rmSync(folder, { recursive: true }));
  const ours = makeAuthority('ours');
  const theirs = makeAuthority('theirs');
  const good = ours.sign('a program', { version: '1.2.3', floor: '1.0.0' });
  const trust = { authorities: ours.certificate, now: Date.now() };
  const bundle = (bytes: Buffer) => {
    writeFileSync(file, bytes);
    return async () => await checkProgram(file, readBundle(file, trust));
  };

  test('a bundle that is signed under the authority is read, and its program is complete', async () => {
    await bundle(good)();
    const { manifest } = readBundle(file, trust);
    assert.deepEqual(
      [manifest.version, manifest.compatible, manifest.floor],
      ['1.2.3', 'postern-node', '1.0.0'],
    );
  });

  test('npm run update-bundle signs the program of this checkout', async () => {
    const made = join(folder, 'made.bundle');
    const script = fileURLToPath(new URL('../../../firmware-image/update-bundle.ts', import.meta.url));
    const said = execFileSync(
      process.execPath,
      [script, '--version', '7.8.9', '--floor', '7.0.0', '--out', made],
      {
        encoding: 'utf8',
      },
    );
    const authority = /update\.authority of the gateways to: (.*)/.exec(said)?.[1] ?? '';
    const bundle = readBundle(made, { authorities: readFileSync(authority, 'utf8'), now: Date.now() });
    await checkProgram(made, bundle);
    assert.deepEqual([bundle.manifest.version, bundle.manifest.floor], ['7.8.9', '7.0.0']);
  });

  test('a bundle that is signed under another authority is refused', async () => {
    await assert.rejects(bundle(theirs.sign('a program', { version: '1.2.3' })), {
      result: FumoResult.NotValidated,
    });
  });

  test('a bundle with any changed octet is refused, or has the manifest and program that were signed', async () => {
    await bundle(good)();
    const meant = readBundle(file, trust).manifest;
    let taken = 0;
    for (let at = 0; at < good.length; at++) {
      const changed = Buffer.from(good);
      changed[at] = changed[at]! ^ 0x01;
      const refusal = await bundle(changed)().then(
        () => undefined,
        (error: { result?: number }) => error.result,
      );
      if (refusal !== undefined) assert.ok([402, 404, 405].includes(refusal), `octet ${at}: ${refusal}`);
      else {
        // Such as the letter case of what PEM has around a certificate: not in what is signed, nor in the program.
        assert.deepEqual(readBundle(file, trust).manifest, meant, `octet ${at}`);
        assert.ok(changed.subarray(-9).equals(good.subarray(-9)));
        taken++;
      }
    }
    assert.ok(taken < good.length / 50, `${taken} of ${good.length} octets do not matter`);
  });

  test('a bundle that is truncated, or has more data after it, is refused', async () => {
    for (let length = 0; length < good.length; length += 7)
      await assert.rejects(bundle(good.subarray(0, length)), /./, `${length} octets`);
    await assert.rejects(bundle(Buffer.concat([good, Buffer.from('x')])), { result: FumoResult.Corrupt });
  });
});
