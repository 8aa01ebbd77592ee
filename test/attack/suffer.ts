import { setTimeout as pause } from 'node:timers/promises';
import { residentMegabytes } from '../bench/measure.ts';
import { type Deed, protectedDevices } from './deed.ts';
import { type AttackedSite, image } from './site.ts';

/** What an attack may do at most. */
export const bars = { slower: 5, megabytes: 16, logged: 1e6 } as const;
/** Milliseconds of honest work before each attack at most, to compare with. */
const quietTime = 5000;
/** Below this p99 in milliseconds nobody waits, whatever the ratio to a quiet time. */
const prompt = 100;

export interface Outcome {
  readonly name: string;
  /** Share of the honest work that succeeded, from 0 to 1. */
  readonly success: number;
  /** Why honest work failed. */
  readonly reasons: readonly string[];
  /** Pieces of honest work during the attack, and of them updates from an image. */
  readonly work: number;
  readonly updates: number;
  /** p99 of the honest work in milliseconds, before and during the attack. */
  readonly quiet: number;
  readonly busy: number;
  /** `busy` as a multiple of `quiet`, or of 20 ms where `quiet` is less. */
  readonly slower: number;
  /** Growth of the gateway's memory in MB. */
  readonly growth: number;
  /** Bytes that the gateway logged during the attack. */
  readonly logged: number;
  /** Honest devices whose first piece of work after the attack failed, or never came. */
  readonly lockedOut: number;
  /** Whether the gateway's process ended. */
  readonly died: boolean;
}

let updates = 0;
/** Orders an update of all OMA DM devices, from an image that the gateway has. */
async function orderUpdate({ headend }: AttackedSite): Promise<void> {
  const item = (uri: string, data: string) =>
    `<Item><Target><LocURI>${uri}</LocURI></Target>${data && `<Data>${data}</Data>`}</Item>`;
  // A gateway works on a bounded number of orders at a time, and this one may wait for a device that has begun anew.
  if (updates > 0)
    await headend.manage('gw-1', [{ name: 'Delete', uri: `./GwFanout/Fanout/update-${updates}` }]);
  await headend.fanOut('gw-1', {
    name: `update-${++updates}`,
    targets: {},
    command: `<Add><CmdID>1</CmdID>${item('./FwUpdate/PkgVersion', `2.0.${updates}`)}</Add><Replace><CmdID>2</CmdID>${item('./FwUpdate/DownloadAndUpdate/PkgURL', `gw-image:${image}`)}</Replace><Exec><CmdID>3</CmdID>${item('./FwUpdate/DownloadAndUpdate', '')}</Exec>`,
  });
}

/** Milliseconds at p99. Work that failed counts as infinitely slow in `success` alone. */
function p99(deeds: readonly Deed[]): number {
  const timed = deeds.filter(({ deed }) => deed !== 'image');
  const sorted = timed.map(({ milliseconds }) => milliseconds).sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0;
}

/** Lets one attack go on for some seconds beside honest devices that have been at work. */
export async function suffer(
  site: AttackedSite,
  name: string,
  seconds: number,
  seed: number,
): Promise<Outcome> {
  const { gateway, target } = site;
  const devices = target.devices + protectedDevices(target.devices).length;
  const died = () => gateway.exitCode !== null || gateway.signalCode !== null;
  site.deeds();
  await pause(Math.min(quietTime, seconds * 1000));
  const before = site.deeds();
  const [memory, log] = [residentMegabytes(gateway), site.logged()];
  let during: Deed[];
  {
    await using _attack = site.attack(name, seed);
    await orderUpdate(site);
    await pause(seconds * 1000);
    during = site.deeds();
  }
  const logged = site.logged() - log;
  // Each device begins anew or has a session within some seconds.
  const after = new Map<string, boolean>();
  for (let waited = 0; waited < 40 && after.size < devices && !died(); waited++) {
    await pause(250);
    for (const { device, ok } of site.deeds()) if (!after.get(device)) after.set(device, ok);
  }
  const growth = died() ? Number.NaN : residentMegabytes(gateway) - memory;
  const [quiet, busy] = [p99(before), p99(during)];
  const failures = during.filter(({ ok }) => !ok);
  return {
    name,
    success: 1 - failures.length / Math.max(1, during.length),
    reasons: [...new Set(failures.map(({ deed, reason }) => `${deed}: ${reason}`))],
    work: during.length,
    updates: during.filter(({ deed }) => deed === 'image').length,
    quiet,
    busy,
    slower: busy / Math.max(quiet, prompt / bars.slower),
    growth,
    logged,
    lockedOut: devices - [...after.values()].filter(Boolean).length,
    died: died(),
  };
}

/** What an attack did beyond the bars. Empty when the gateway withstood it. */
export function verdict({
  success,
  reasons,
  work,
  updates,
  slower,
  growth,
  logged,
  lockedOut,
  died,
  busy,
}: Outcome): string[] {
  return [
    ...(died ? ['the gateway ended'] : []),
    ...(work === 0 ? ['no honest work was done'] : []),
    ...(updates === 0 ? ['no device could load its image'] : []),
    ...(success < 1
      ? [`${((1 - success) * 100).toFixed(1)} % of honest work failed (${reasons.join('; ')})`]
      : []),
    ...(slower > bars.slower ? [`p99 ${busy.toFixed(0)} ms, ${slower.toFixed(1)} times`] : []),
    ...(growth > bars.megabytes ? [`memory grew by ${growth.toFixed(0)} MB`] : []),
    ...(logged > bars.logged ? [`${(logged / 1e6).toFixed(1)} MB were logged`] : []),
    ...(lockedOut > 0 ? [`${lockedOut} honest devices are locked out`] : []),
  ];
}
