// Slots that are folders: which authorities and revocation lists count, over updates, restarts and faults.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Wall } from '../../../src/base/clock.ts';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import type { SlotName } from '../../../src/gateway/update/boot-state.ts';
import type { BundleSigner } from '../../../src/gateway/update/bundle.ts';
import { bootStateOf, DirectorySlots, manifestOf } from '../../../src/gateway/update/directory-slots.ts';
import { FumoResult } from '../../../src/mo/fumo.ts';
import { HandClock } from '../../hand-clock.ts';
import { smallDisk } from '../../small-disk.ts';
import { Authority, bundleBy, type Facts } from './signing.ts';

const day = 24 * 3600 * 1000;
/** After all certificates have begun. */
const begin = Date.now() + 60_000;
const [first, next, third] = ['first', 'next', 'third'].map((name) => new Authority(name)) as [
  Authority,
  Authority,
  Authority,
];
const [byFirst, byNext, byThird] = [first.signer(), next.signer(), third.signer()];
const untrusted = { result: FumoResult.NotValidated };

/** A clock of which only the time of day is asked. */
class WallClock extends HandClock {
  time = begin;
  override wall(): Wall {
    return this.time as Wall;
  }
}

function machine(t: TestContext, folder = mkdtempSync(join(tmpdir(), 'postern-folders-'))) {
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const directory = join(folder, 'slots');
  const clock = new WallClock();
  const settings = { authority: first.certificate, secondAuthority: '' };
  let current: SlotName = 'A';
  /** The gateway that runs now: it begins anew each time, as after a restart. */
  const slots = () =>
    new DirectorySlots({
      ...{ directory, current, clock, disk: new DiskRoom(0), restart: () => {}, ...settings },
    });
  const install = async (signers: readonly BundleSigner[], facts: Facts) => {
    writeFileSync(slots().bundleFile, bundleBy(signers, 'a program', facts));
    await slots().inspect();
    await slots().install();
  };
  /** Installs, and starts the new version. `isKept`: it is healthy. */
  const update = async (signers: readonly BundleSigner[], facts: Facts, isKept = true) => {
    await install(signers, facts);
    await slots().try(1);
    current = bootStateOf(directory).read().trying!;
    if (isKept) await slots().keep();
  };
  return {
    directory,
    clock,
    settings,
    slots,
    install,
    update,
    /** The other slot is started. */
    fallBack: () => {
      current = current === 'A' ? 'B' : 'A';
    },
  };
}

/** A bundle by the first authority that brings the next one. */
const bridge = (version: string): Facts => ({
  version,
  authority: { certificate: next.certificate, until: (begin + 30 * day) / 1000 },
});

test('a bundle brings another authority: both count until the end of the old one, and then the new one alone', async (t) => {
  const { update, install, clock, slots } = machine(t);
  await assert.rejects(install([byNext], { version: '1.1.0' }), untrusted);
  await update([byFirst], bridge('1.1.0'));
  await update([byNext], { version: '1.2.0' });
  await update([byFirst], { version: '1.3.0' });
  clock.time += 29 * day;
  await update([byFirst], { version: '1.4.0' });
  clock.time += 2 * day;
  await assert.rejects(install([byFirst], { version: '1.5.0' }), untrusted);
  await update([byNext], { version: '1.5.0' });
  assert.equal(slots().version, '1.5.0');
  // A clock that is lost makes nobody believe the old one again.
  clock.time = 0;
  await assert.rejects(install([byFirst], { version: '1.6.0' }), untrusted);
  await update([byNext], { version: '1.6.0' });
});

test('a second rotation: the first authority is not trusted again', async (t) => {
  const { update, install } = machine(t);
  await update([byFirst], bridge('1.1.0'));
  const authority = { certificate: third.certificate, until: (begin + 90 * day) / 1000 };
  await update([byNext], { version: '1.2.0', authority });
  await assert.rejects(install([byFirst], { version: '1.3.0' }), untrusted);
  await update([byNext], { version: '1.3.0' });
  await update([byThird], { version: '1.4.0' });
});

test('a rotation that is cut off, fails or is given up locks nobody out', async (t) => {
  const { update, install, fallBack, slots, directory } = machine(t);
  await update([byFirst], { version: '1.0.0' });
  // The power goes after the slot is written, and before it is tried.
  await install([byFirst], bridge('1.1.0'));
  await assert.rejects(install([byNext], { version: '1.2.0' }), untrusted);
  await install([byFirst], { version: '1.0.1' });
  // While it is written: a folder that is not complete is left.
  mkdirSync(join(directory, 'a.new'));
  writeFileSync(join(directory, 'a.new/manifest.json'), '{"trust":{');
  await install([byFirst], bridge('1.1.0'));
  // A manifest that cannot be read.
  writeFileSync(join(directory, 'a/manifest.json'), '{"trust":{');
  await update([byFirst], bridge('1.1.0'), false);
  // The new version is not healthy.
  fallBack();
  await assert.rejects(install([byNext], { version: '1.2.0' }), untrusted);
  await update([byFirst], bridge('1.1.0'));
  await update([byNext], { version: '1.2.0' });
  assert.equal(slots().version, '1.2.0');
});

test('a new authority that could certify nobody is refused before anything is written', async (t) => {
  const { install, directory } = machine(t);
  const until = (begin + day) / 1000;
  for (const certificate of ['', 'no PEM', byNext.certificates[0]!])
    await assert.rejects(install([byFirst], { version: '1.1.0', authority: { certificate, until } }), {
      result: FumoResult.NotAcceptable,
    });
  assert.equal(manifestOf(directory, 'B'), undefined);
});

test('an operator who configures another authority after a rotation is obeyed', async (t) => {
  const { update, install, settings } = machine(t);
  await update([byFirst], bridge('1.1.0'));
  settings.authority = third.certificate;
  await update([byThird], { version: '1.2.0' });
  await assert.rejects(install([byFirst], { version: '1.3.0' }), untrusted);
});

test('revocation lists stay over restarts, and none takes the place of a newer one', async (t) => {
  const own = new Authority('lists');
  const [good, thief] = [own.signer(), own.signer()];
  const [old, list] = [own.list(1, []), own.list(2, [thief])];
  const { slots, settings, install, update } = machine(t);
  settings.authority = own.certificate;
  assert.equal(slots().lists(), '');
  await install([thief], { version: '1.0.1' });
  await slots().revoke(list);
  await assert.rejects(install([thief], { version: '1.1.0' }), { ...untrusted, message: /revoked/ });
  for (const worse of [old, first.list(9, []), 'nonsense', ''])
    await assert.rejects(slots().revoke(worse), { code: 'conflict' });
  await slots().revoke(list);
  assert.equal(slots().lists(), list.trim());
  // A bundle brings an older one, and then a newer one.
  const bring = (text: string) => ({ ...good, certificates: [...good.certificates, text] });
  await update([bring(old)], { version: '1.1.0' });
  await assert.rejects(install([thief], { version: '1.2.0' }), untrusted);
  await update([bring(own.list(3, [thief, good]))], { version: '1.2.0' }).catch(() => {});
  assert.equal(slots().version, '1.1.0', 'a signer who revokes itself');
  const another = own.signer();
  const newer = own.list(4, [thief, good]);
  await update([{ ...another, certificates: [...another.certificates, newer] }], { version: '1.2.0' });
  assert.equal(slots().lists(), newer.trim());
  await assert.rejects(install([good], { version: '1.3.0' }), untrusted);
});

test('a list that cannot be written is an error, and the one before stays', async (t) => {
  const disk = smallDisk(t, 1);
  if (disk === undefined) return;
  const own = new Authority('full');
  const { slots, settings } = machine(t, join(disk, 'machine'));
  settings.authority = own.certificate;
  await slots().revoke(own.list(1, []));
  const before = slots().lists();
  const rest = join(disk, 'rest');
  const fill = () => writeFileSync(rest, Buffer.alloc(2 * 1024 * 1024));
  assert.throws(fill, { code: 'ENOSPC' });
  await assert.rejects(slots().revoke(own.longList(2, 900)), { code: 'ENOSPC' });
  assert.equal(slots().lists(), before);
  rmSync(rest);
  await slots().revoke(own.list(3, []));
  assert.notEqual(slots().lists(), before);
});

test('two lists at once: the newer one is in force', async (t) => {
  const own = new Authority('twice');
  const { slots, settings } = machine(t);
  settings.authority = own.certificate;
  const [one, two] = [own.list(1, []), own.list(2, [])];
  const driver = slots();
  await Promise.allSettled([driver.revoke(two), driver.revoke(one)]);
  assert.equal(slots().lists(), two.trim());
});

test('the second signature is asked for as soon as it is configured', async (t) => {
  const { update, install, settings } = machine(t);
  await update([byFirst], { version: '1.1.0' });
  settings.secondAuthority = third.certificate;
  await assert.rejects(install([byFirst], { version: '1.2.0' }), untrusted);
  await update([byFirst, byThird], { version: '1.2.0' });
});
