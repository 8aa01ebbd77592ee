import { pause } from '../../src/base/clock.ts';
import { FumoResult } from '../../src/mo/fumo.ts';
import { Dice } from '../peers/stock/dice.ts';
import { type Lwm2mHabits, lwm2mHabits } from '../peers/stock/lwm2m-habits.ts';
import { type Held, shown } from '../peers/stock/lwm2m-values.ts';
import { beforeOf, compare, operationsBy, valuesBy } from './lwm2m-orders.ts';
import { givenLifetime, Lwm2mSite } from './lwm2m-site.ts';
import type { Disagreement, Play } from './play.ts';

/** Milliseconds after which no datagram of an exchange is on its way any more (EXCHANGE_LIFETIME, RFC 7252, section 4.8.2). */
const settled = 247_000;
/** Times that a client tries what got no answer. */
const attempts = 6;

/** What happens in the life of a client besides its habits. */
interface Fate {
  /** Who loses its power during an order. */
  readonly powerCut: 'client' | 'gateway' | undefined;
  readonly isObserved: boolean;
  readonly isUpdated: boolean;
}

const fateBy = (dice: Dice): Fate => ({
  powerCut: dice.pick([undefined, undefined, undefined, 'client', 'gateway']),
  isObserved: dice.chance(0.4),
  isUpdated: dice.chance(0.4),
});

/** One life of a stock client: it gets an account, registers, is read and written, observed, updated, and leaves. */
export const playLwm2mClient: Play = async (seed, trace, given = {}) => {
  const dice = new Dice(seed);
  const habits: Lwm2mHabits & Fate = { ...lwm2mHabits(dice), ...fateBy(dice), ...given };
  await using site = new Lwm2mSite(habits, dice, valuesBy(dice, habits), trace);
  const life = new Life(site, dice, habits);
  const end = await life.live().catch((thrown: Error) => thrown.message);
  const found = [...life.found, ...site.client.accounts.complaints];
  if (end !== 'done') found.push(`it ends with ${end}`);
  return { end, habits, disagreements: found.map((what): Disagreement => ({ what, habits })) };
};

class Life {
  readonly found: string[] = [];
  readonly #site: Lwm2mSite;
  readonly #dice: Dice;
  readonly #habits: Lwm2mHabits & Fate;
  readonly #sleeps: boolean;

  constructor(site: Lwm2mSite, dice: Dice, habits: Lwm2mHabits & Fate) {
    this.#site = site;
    this.#dice = dice;
    this.#habits = habits;
    this.#sleeps = habits.queue || habits.binding === 'UQ';
  }

  async live(): Promise<string> {
    const { bootstrap, isObserved, isUpdated, powerCut, sends } = this.#habits;
    const dice = this.#dice;
    for (let times = bootstrap === 'factory' ? 0 : dice.between(1, 2); times > 0; times--)
      await this.#bootstrap();
    await this.#register();
    const rounds = dice.between(1, 2);
    const cutAt = powerCut ? dice.below(rounds) : -1;
    if (isObserved) await this.#observe();
    for (let round = 0; round < rounds; round++)
      if (round === cutAt) await this.#orderWithPowerCut();
      else await this.#order();
    if (isObserved) await this.#changeObserved();
    if (sends) await this.#send();
    if (isUpdated) await this.#update();
    const left = await this.#insist(() => this.#site.client.deregister(), '2.02', '4.04');
    return left === '2.02' || left === '4.04' ? 'done' : `deregistration ${left}`;
  }

  /** What the client asks of the gateway, again where no answer comes. Returns the code of the answer. */
  async #insist(ask: () => Promise<string>, ...right: readonly string[]): Promise<string> {
    let code = 'no answer';
    for (let attempt = 0; attempt < attempts && !right.includes(code); attempt++) {
      code = await this.#site.finish(ask().catch(() => 'no answer'));
      // A client that begins anew may by chance use a message ID of before again, and gets the answer of that message.
      if (this.#habits.loses === 0 && !this.#habits.powerCut) break;
    }
    return code;
  }

  async #bootstrap(): Promise<void> {
    const { client } = this.#site;
    const { bootstrap } = this.#habits;
    const right = bootstrap === 'pack' ? '2.05' : '2.04';
    const code = await this.#insist(() => client.bootstrap(), right);
    if (code !== right) throw new Error(`bootstrap ${code}`);
    const { given, security, servers } = client.accounts;
    const uris = given.map(({ uri, shortServerId }) => `${uri} ${shortServerId}`);
    // The port is the usual one, and may be left out.
    if (uris.length !== 1 || !/^coap:\/\/192\.0\.2\.1(:5683)?\/? 1$/.test(uris[0] ?? ''))
      this.found.push(`the bootstrap gives the accounts ${uris}`);
    const lifetimes = [...servers.values()].map((each) => `${each.shortServerId} ${each.lifetime}`);
    if (lifetimes.join() !== `1 ${givenLifetime}`)
      this.found.push(`the bootstrap gives the servers ${lifetimes}`);
    if (security.size !== given.length + 1) this.found.push('the bootstrap server has no account any more');
  }

  /** The client registers until it is attached: the gateway may not hear the answer to its first question. */
  async #register(): Promise<void> {
    const site = this.#site;
    let isValid = false;
    for (let attempt = 0; attempt < attempts && !isValid; attempt++) {
      const code = await this.#insist(() => site.client.register(), '2.01');
      if (code !== '2.01') throw new Error(`registration ${code}`);
      isValid = await site.until(() => site.agreesOnRegistration, 120);
    }
    if (!isValid) throw new Error('not attached');
  }

  /** The client is heard: a gateway that has lost it says so, and it registers again. */
  async #wake(): Promise<void> {
    const code = await this.#insist(() => this.#site.client.update(), '2.04', '4.04');
    if (code === '4.04') await this.#register();
  }

  async #order(): Promise<void> {
    const site = this.#site;
    const { client } = site;
    const operations = operationsBy(this.#dice, client);
    const before = beforeOf(client);
    client.log.length = 0;
    if (this.#sleeps) await site.pass(this.#dice.pick([0, 200_000]));
    client.missed = 0;
    const work = site.manage(operations);
    work.catch(() => {});
    if (this.#sleeps) {
      const { isAsleep } = client;
      if (isAsleep) await site.pass(30_000);
      if (isAsleep && client.missed > 0) this.found.push('an order is sent to a client that sleeps');
      await this.#wake();
    }
    const outcomes = await this.#settle(work);
    for (const outcome of outcomes)
      this.found.push(...compare(outcome, client, before, this.#habits.loses > 0));
  }

  /** The outcomes of an order. A client that its order has not reached is heard again. */
  async #settle(work: ReturnType<Lwm2mSite['manage']>): ReturnType<Lwm2mSite['manage']> {
    const outcomes = await this.#site.finish(work);
    if (outcomes === 'never') throw new Error('an order without an end');
    return outcomes;
  }

  /** Client or gateway begin anew in the middle of an order. What the gateway says afterwards holds. */
  async #orderWithPowerCut(): Promise<void> {
    const site = this.#site;
    const { client } = site;
    const operations = operationsBy(this.#dice, client);
    const before = beforeOf(client);
    client.log.length = 0;
    const work = site.manage(operations).catch(() => []);
    await site.pass(this.#dice.pick([0, 1, 2000, 2100, 9000]));
    if (this.#habits.powerCut === 'gateway') {
      await site.finish(site.restart());
      site.wish(this.#wishes);
      // Nobody waits for the outcomes any more; the client may have done any part of the order.
      await this.#settle(work);
      await site.pass(settled);
      await this.#wake();
      return;
    }
    await site.finish(client.losePower(this.#dice.pick([1000, 30_000, 300_000])));
    await this.#register();
    const outcomes = await this.#settle(work);
    for (const outcome of outcomes) this.found.push(...compare(outcome, client, before, true));
  }

  #wishes: Parameters<Lwm2mSite['wish']>[0] = [];

  async #observe(): Promise<void> {
    const site = this.#site;
    const dice = this.#dice;
    const paths = dice.pick([['/3/0/9'], ['/3/0/9', '/3/0/13'], ['/3/0'], ['/3303/0/5750', '/3/0/9']]);
    const attributes = dice.pick([{}, {}, { pmin: 5 }, { pmin: 2, pmax: 600 }]);
    this.#wishes = [{ name: 'w', paths, attributes }];
    site.wish(this.#wishes);
    if (this.#sleeps) await this.#wake();
    await this.#observed();
  }

  /** The observation stands at both sides, or is refused. */
  async #observed(): Promise<void> {
    const site = this.#site;
    const { observes, conditions, powerCut, loses } = this.#habits;
    const [{ attributes, paths } = { attributes: {}, paths: [] }] = this.#wishes;
    const isRefused = !observes || (conditions === 'refuses' && Object.keys(attributes).length > 0);
    for (let attempt = 0; attempt < attempts; attempt++) {
      await site.until(() => site.stateOf('w')?.state === (isRefused ? 'refused' : 'observing'), 120);
      if (site.stateOf('w')?.state !== 'waiting') break;
      await this.#wake();
    }
    const state = site.stateOf('w');
    const { size } = site.client.observed;
    if (state?.state !== (isRefused ? 'refused' : 'observing'))
      this.found.push(`an observation is ${JSON.stringify(state)}, and the client has ${size}`);
    // Observations that the gateway does not know, because it has begun anew or an answer was lost, end with a Reset later.
    const isComplete = powerCut === 'gateway' || loses > 0 ? size > 0 : size === 1 || size === paths.length;
    if (observes && !isRefused && !isComplete)
      this.found.push(`the gateway is observing, and the client has ${size} observations`);
  }

  /** Values change, and the last of each is known at the gateway. Then nothing is observed any more. */
  async #changeObserved(): Promise<void> {
    const site = this.#site;
    const { client } = site;
    const dice = this.#dice;
    if (this.#habits.powerCut) {
      await this.#wake();
      await this.#observed();
    }
    const isObserving = site.stateOf('w')?.state === 'observing';
    const [{ paths } = { paths: [] as readonly string[] }] = this.#wishes;
    site.reported.length = 0;
    let level = 0n;
    for (let changes = dice.between(1, 4); changes > 0; changes--) {
      level = BigInt(dice.between(0, 100));
      client.change('3/0/9', { type: 'integer', value: level });
      await site.pass(dice.pick([0, 100, 3000, 20_000]));
    }
    const isTold = paths.some((path) => '/3/0/9'.startsWith(path));
    if (isObserving && isTold) {
      await site.pass(settled);
      const told = site.reported
        .filter(({ wish }) => wish === 'w')
        .flatMap(({ values }) => values.filter(({ path }) => path === '/3/0/9'));
      const last = told.at(-1)?.value;
      if (String(last) !== String(level))
        this.found.push(
          `the gateway has been told ${told.map(({ value }) => value)}, and the value is ${level}`,
        );
    }
    site.wish([]);
    if (this.#sleeps) await this.#wake();
    await site.pass(60_000);
    // Whoever does not hear a cancellation is told by a Reset of the next notification.
    for (const [path, held] of client.values) client.change(path, held);
    await site.pass(settled);
    if (client.observed.size > 0)
      this.found.push(`the client still has ${client.observed.size} observations`);
  }

  async #send(): Promise<void> {
    const site = this.#site;
    const { client } = site;
    const isSent = ([path, held]: [string, Held]) =>
      path.startsWith('3/0/') && path !== '3/0/13' && shown(held).length < 200;
    const values = new Map([...client.values].filter(isSent));
    site.reported.length = 0;
    const code = await this.#insist(() => client.sendValues(values), '2.04', '4.04');
    const sent = site.reported.filter(({ wish }) => wish === undefined);
    if (code === '4.04' && sent.length === 0) return;
    if (code !== '2.04') this.found.push(`a Send gets ${code}`);
    // The client repeats what had no answer.
    if (sent.length !== 1 && this.#habits.loses === 0) this.found.push(`a Send counts ${sent.length} times`);
    for (const [path, held] of values) {
      const [told] = sent.at(-1)?.values.filter((each) => each.path === `/${path}`) ?? [];
      if (String(told?.value) !== shown(held)) this.found.push(`a Send of ${path}: ${told?.value}`);
    }
  }

  async #update(): Promise<void> {
    const site = this.#site;
    const { client } = site;
    const { updateResult, loses, powerCut } = this.#habits;
    const node = './FwUpdate/DownloadAndUpdate';
    const work = site.manage([
      { name: 'Replace', uri: `${node}/PkgURL`, data: site.uri },
      { name: 'Exec', uri: node, correlator: 'c' },
    ]);
    work.catch(() => {});
    if (this.#sleeps) await this.#wake();
    const outcomes = await this.#settle(work);
    if (outcomes.some(({ status }) => status >= 300))
      return void this.found.push(`the update was not taken: ${JSON.stringify(outcomes)}`);
    if (powerCut === 'gateway') {
      await site.pass(this.#dice.pick([1, 600, 2500, 6000, 40_000]));
      await site.finish(site.restart());
      if (this.#sleeps) await this.#wake();
    }
    await site.until(() => site.results.length > 0, 8000);
    // What was on its way when the gateway reported has come by then.
    await site.finish(pause(site.clock, settled));
    const [result] = site.results;
    const isDone = result === FumoResult.Ok;
    const { state, result: own, image } = client.firmware;
    const runs = Buffer.compare(image, site.bytes) === 0;
    if (site.results.length !== 1) this.found.push(`the update has the results ${site.results}`);
    const said = `Update Result ${own} in State ${state}, and ${runs ? 'runs' : 'does not run'} the image`;
    if (isDone !== runs || isDone !== (own === 1 && state === 0))
      this.found.push(`the update ends with ${result}, and the client has ${said}`);
    // A client whose datagrams are lost may fall asleep in the middle, and is not back within an hour.
    if (loses === 0 && (updateResult === 1) !== isDone)
      this.found.push(`the update ends with ${result}, and the client would say ${updateResult}`);
  }
}
