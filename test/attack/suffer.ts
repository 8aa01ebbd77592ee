import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Headend } from '../../src/headend/headend.ts';
import { residentMegabytes } from '../bench/measure.ts';
import type { Deed } from './deed.ts';
import { attackedSite } from './site.ts';

/** What an attack may do at most. */
export const bars = { slower: 5, megabytes: 16, logged: 1e6 } as const;
/** Below this p99 in milliseconds nobody waits, whatever the ratio to a quiet time. */
const prompt = 100;

export interface Outcome {
  readonly name: string;
  /** Share of the honest work that succeeded, from 0 to 1. */
  readonly success: number;
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

const image = 'firmware';
/** Bytes of the image that all devices load during an attack. */
const imageBytes = 20_000;

/** Orders an update of all OMA DM devices, from an image that the gateway has. */
async function orderUpdate(headend: Headend): Promise<void> {
  const item = (uri: string, data: string) =>
    `<Item><Target><LocURI>${uri}</LocURI></Target>${data && `<Data>${data}</Data>`}</Item>`;
  await headend.fanOut('gw-1', {
    name: 'update',
    targets: {},
    command: `<Add><CmdID>1</CmdID>${item('./FwUpdate/PkgVersion', '2.0.0')}</Add><Replace><CmdID>2</CmdID>${item('./FwUpdate/DownloadAndUpdate/PkgURL', `gw-image:${image}`)}</Replace><Exec><CmdID>3</CmdID>${item('./FwUpdate/DownloadAndUpdate', '')}</Exec>`,
  });
}

/** Milliseconds at p99. Work that failed counts as infinitely slow in `success` alone. */
function p99(deeds: readonly Deed[]): number {
  const timed = deeds.filter(({ deed }) => deed !== 'image');
  const sorted = timed.map(({ milliseconds }) => milliseconds).sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0;
}

/** Lets one attack go on beside honest devices for some seconds. */
export async function suffer(name: string, devices: number, seconds: number, seed: number): Promise<Outcome> {
  await using site = await attackedSite(devices, seed);
  const { gateway } = site;
  let died = false;
  gateway.once('exit', () => {
    died = true;
  });
  await site.headend.stageImage('gw-1', { name: image, data: randomBytes(imageBytes) });
  // Warm-up, and then the quiet time.
  await pause(3000);
  site.deeds();
  await pause(Math.min(10, seconds) * 1000);
  const before = site.deeds();
  const [memory, log] = [residentMegabytes(gateway), site.logged()];
  let during: Deed[];
  {
    await using _attack = site.attack(name, seed);
    await orderUpdate(site.headend);
    await pause(seconds * 1000);
    during = site.deeds();
  }
  const logged = site.logged() - log;
  // Each device begins anew or has a session within some seconds.
  const after = new Map<string, boolean>();
  for (let waited = 0; waited < 20 && after.size < devices && !died; waited++) {
    await pause(500);
    for (const { device, ok } of site.deeds()) if (!after.get(device)) after.set(device, ok);
  }
  const growth = died ? Number.NaN : residentMegabytes(gateway) - memory;
  const [quiet, busy] = [p99(before), p99(during)];
  return {
    name,
    success: during.filter(({ ok }) => ok).length / Math.max(1, during.length),
    work: during.length,
    updates: during.filter(({ deed }) => deed === 'image').length,
    quiet,
    busy,
    slower: busy / Math.max(quiet, prompt / bars.slower),
    growth,
    logged,
    lockedOut: devices - [...after.values()].filter(Boolean).length,
    died,
  };
}

/** What an attack did beyond the bars. Empty when the gateway withstood it. */
export function verdict({
  success,
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
    ...(success < 1 ? [`${((1 - success) * 100).toFixed(1)} % of honest work failed`] : []),
    ...(slower > bars.slower ? [`p99 ${busy.toFixed(0)} ms, ${slower.toFixed(1)} times`] : []),
    ...(growth > bars.megabytes ? [`memory grew by ${growth.toFixed(0)} MB`] : []),
    ...(logged > bars.logged ? [`${(logged / 1e6).toFixed(1)} MB were logged`] : []),
    ...(lockedOut > 0 ? [`${lockedOut} honest devices are locked out`] : []),
  ];
}
