import { setTimeout as pause } from 'node:timers/promises';
import { residentMegabytes } from '../bench/measure.ts';
import { attacks } from './attacks.ts';
import { type Deed, discoverers, hasServer, image, needsServer } from './deed.ts';
import type { AttackedSite } from './site.ts';

/** What an attack may do at most. The memory is that of the gateway, and that of the head-end. */
export const bars = { slower: 5, megabytes: 16, logged: 1e6 } as const;
/** Below this p99 in milliseconds nobody waits, whatever the ratio to a quiet time. */
const prompt = 100;
/** Milliseconds for honest parties to get in again after an attack; after one that cut off the DM server, until all is connected again. */
const recovery = { others: 30_000, cutOff: 90_000 } as const;
/** Devices that attach for the first time while the gateway is cut off. */
const newcomersAtOnce = 5;
/** Milliseconds of an attack within which each of those who look for the gateway must have found it. */
const leisure = 8000;

export interface Outcome {
  readonly name: string;
  /** Share of the honest work that succeeded, from 0 to 1. */
  readonly success: number;
  /** Why honest work failed. */
  readonly reasons: readonly string[];
  /** Pieces of honest work during the attack, and of them updates from an image. */
  readonly work: number;
  readonly updates: number;
  /** Parties that looked for the gateway by multicast, and did not find it although there was time. */
  readonly lost: number;
  /** p99 of the honest work during the attack, as a multiple of the one of quiet times before, or of 20 ms where that is less. */
  readonly slower: number;
  /** Of which kind of work, and the two p99 in milliseconds. */
  readonly slowest: string;
  /** Growth of memory in MB, of the gateway and of the head-end. */
  readonly growth: number;
  readonly headendGrowth: number;
  /** Bytes that the gateway or the head-end logged during the attack, whichever is more. */
  readonly logged: number;
  /** Honest parties that did not succeed with a piece of work after the attack. */
  readonly lockedOut: readonly string[];
  /** Devices that attached during the attack, and of which the DM server has not heard exactly once. */
  readonly notOnce: number;
  /** Whether a process of the gateway or of the head-end ended. */
  readonly died: boolean;
  /** What the attack has done that did least: datagrams, requests, messages or connections. */
  readonly acts: number;
}

let updates = 0;
/** Orders an update of all OMA DM devices, from an image that the gateway has. */
async function orderUpdate({ operator }: AttackedSite): Promise<void> {
  const item = (uri: string, data: string) =>
    `<Item><Target><LocURI>${uri}</LocURI></Target>${data && `<Data>${data}</Data>`}</Item>`;
  // A gateway works on a bounded number of orders at a time, and this one may wait for a device that has begun anew.
  if (updates > 0)
    await operator.manage('gw-1', [{ name: 'Delete', uri: `./GwFanout/Fanout/update-${updates}` }]);
  await operator.ask('POST', '/fanouts', {
    gateway: 'gw-1',
    name: `update-${++updates}`,
    command: `<Add><CmdID>1</CmdID>${item('./FwUpdate/PkgVersion', `2.0.${updates}`)}</Add><Replace><CmdID>2</CmdID>${item('./FwUpdate/DownloadAndUpdate/PkgURL', `gw-image:${image}`)}</Replace><Exec><CmdID>3</CmdID>${item('./FwUpdate/DownloadAndUpdate', '')}</Exec>`,
  });
}

/** Kinds of work whose time depends on what a device does just then, or on chance. */
const untimed: ReadonlySet<Deed['deed']> = new Set(['image', 'order', 'discovery', 'newcomer']);

/** Milliseconds at p99, by kind of work. */
function p99(deeds: readonly Deed[]): Map<Deed['deed'], number> {
  const kinds = Map.groupBy(deeds, ({ deed }) => deed);
  return new Map(
    [...kinds]
      .filter(([kind]) => !untimed.has(kind))
      .map(([kind, all]) => {
        const sorted = all.map(({ milliseconds }) => milliseconds).sort((one, other) => one - other);
        return [kind, sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0];
      }),
  );
}

/** The kind of work that became slowest, as a multiple of its p99 before. */
function slowest(before: readonly Deed[], during: readonly Deed[]): Pick<Outcome, 'slower' | 'slowest'> {
  const quiet = p99(before);
  return [...p99(during)]
    .map(([kind, busy]) => {
      const calm = quiet.get(kind) ?? 0;
      const text = `${kind} ${calm.toFixed(0)} ms, then ${busy.toFixed(0)} ms`;
      return { slower: busy / Math.max(calm, prompt / bars.slower), slowest: text };
    })
    .reduce((worst, one) => (one.slower > worst.slower ? one : worst), { slower: 0, slowest: '' });
}

/** Waits until all are true, at most so many milliseconds. Returns which are not. */
async function untilAll<T>(all: readonly T[], isDone: (one: T) => boolean, patience: number): Promise<T[]> {
  for (const end = performance.now() + patience; ; ) {
    const open = all.filter((one) => !isDone(one));
    if (open.length === 0 || performance.now() > end) return open;
    await pause(100);
  }
}

export interface Sufferance {
  /** Attacks that go on at once. Those that cut the gateway off come one after the other. */
  readonly names: readonly string[];
  /** Milliseconds of each attack, and of honest work before it to compare with. */
  readonly time: number;
  readonly quiet: number;
  /** What honest parties did before the first attack. See `withoutAttack`. */
  readonly calm: readonly Deed[];
  readonly seed: number;
}

/**
 * What honest parties do in so many milliseconds without an attack, with an update ordered as in an attack. Some of them do so little
 * in the short time before an attack that its p99 alone would be the time of the slowest of ten.
 */
export async function withoutAttack(site: AttackedSite, time: number): Promise<Deed[]> {
  site.deeds();
  await orderUpdate(site);
  await pause(time);
  return site.deeds();
}

/** Lets one attack go on for some time beside honest parties that have been at work. */
export async function suffer(
  site: AttackedSite,
  { names, time, quiet, calm, seed }: Sufferance,
): Promise<Outcome> {
  const { gateway, headend, target, attachments } = site;
  const isCutOff = names.some((name) => attacks[name]!.cutsOff);
  const parties = [gateway, headend];
  const died = () => parties.some((party) => party.died);
  site.deeds();
  if (quiet > 0) await orderUpdate(site);
  await pause(quiet);
  const before = [...calm, ...site.deeds()];
  const [memory, log] = [
    parties.map(({ child }) => residentMegabytes(child)),
    parties.map(({ logged }) => logged),
  ];
  const acts: number[] = [];
  const fresh = isCutOff ? site.newcomers(newcomersAtOnce) : [];
  for (const atOnce of isCutOff ? names.map((name) => [name]) : [names]) {
    await using attack = site.attack(atOnce, seed);
    if (!isCutOff) await orderUpdate(site);
    await attack.begun;
    await pause(time);
    acts.push(attack.acts());
  }
  let during = site.deeds();
  const logged = parties.map((party, at) => party.logged - log[at]!);
  const servers = new Set(
    Array.from({ length: target.devices }, (_, at) => at)
      .filter(hasServer)
      .map((at) => `urn:dev:bench:${at}`),
  );
  // Meanwhile only work counts that does without the DM server, of those that do nothing else.
  if (isCutOff) during = during.filter(({ deed, device }) => !needsServer.has(deed) && !servers.has(device));

  const after: Deed[] = [];
  const again = (who: string, ...kinds: Deed['deed'][]) => {
    after.push(...site.deeds());
    return after.some(
      ({ device, deed, ok }) => ok && device === who && (kinds.length === 0 || kinds.includes(deed)),
    );
  };
  const patience = isCutOff ? recovery.cutOff : recovery.others;
  const everybody = ['operator', ...Array.from({ length: target.devices }, (_, at) => `urn:dev:bench:${at}`)];
  const lockedOut = died()
    ? everybody
    : await untilAll(
        everybody,
        (who) => died() || (isCutOff && servers.has(who) ? again(who, 'tunnel') : again(who)),
        patience,
      );
  if (isCutOff && !died()) {
    await untilAll(fresh, (device) => attachments.has(device), patience);
    // Orders get to the gateway again, and it has had time to say once more what it has said.
    await orderUpdate(site);
    await untilAll(
      ['image' as const],
      (kind) => again('', kind) || after.some(({ deed }) => deed === kind),
      patience,
    );
  }
  const growth = died()
    ? [Number.NaN, Number.NaN]
    : parties.map(({ child }, at) => residentMegabytes(child) - memory[at]!);
  const failures = during.filter(({ ok }) => !ok);
  const found = new Set(
    during.filter(({ deed, ok }) => ok && deed === 'discovery').map(({ device }) => device),
  );
  return {
    name: names.join(),
    success: 1 - failures.length / Math.max(1, during.length),
    reasons: [...new Set(failures.map(({ deed, device, reason }) => `${deed} of ${device}: ${reason}`))],
    work: during.length,
    updates: [...during, ...after].filter(({ deed, ok }) => deed === 'image' && ok).length,
    lost: time < leisure ? 0 : discoverers - found.size,
    ...slowest(before, during),
    growth: growth[0]!,
    headendGrowth: growth[1]!,
    logged: Math.max(...logged),
    lockedOut,
    notOnce: fresh.filter((device) => attachments.get(device) !== 1).length,
    died: died(),
    acts: Math.min(...acts),
  };
}

/** What an attack did beyond the bars. Empty when the site withstood it. */
export function verdict(outcome: Outcome): string[] {
  const { success, reasons, work, updates, lost, slower, slowest, growth, logged, lockedOut } = outcome;
  return [
    ...(outcome.died ? ['a process ended'] : []),
    ...(work === 0 ? ['no honest work was done'] : []),
    ...(updates === 0 ? ['no device could load its image'] : []),
    ...(success < 1
      ? [`${((1 - success) * 100).toFixed(1)} % of honest work failed (${reasons.slice(0, 8).join('; ')})`]
      : []),
    ...(lost > 0 ? [`${lost} of ${discoverers} did not find the gateway`] : []),
    ...(slower > bars.slower ? [`p99 of ${slowest}: ${slower.toFixed(1)} times`] : []),
    ...(growth > bars.megabytes ? [`memory of the gateway grew by ${growth.toFixed(0)} MB`] : []),
    ...(outcome.headendGrowth > bars.megabytes
      ? [`memory of the head-end grew by ${outcome.headendGrowth.toFixed(0)} MB`]
      : []),
    ...(logged > bars.logged ? [`${(logged / 1e6).toFixed(1)} MB were logged`] : []),
    ...(lockedOut.length > 0 ? [`locked out: ${lockedOut.slice(0, 5).join(' ')} (${lockedOut.length})`] : []),
    ...(outcome.notOnce > 0 ? [`the DM server has not heard once of ${outcome.notOnce} devices`] : []),
  ];
}
