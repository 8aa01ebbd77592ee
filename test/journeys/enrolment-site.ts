import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/base/clock.ts';
import { checkConfig } from '../../src/base/config.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { checkGatewayConfig, enrolIfNeeded, identityFiles } from '../../src/gateway/enrolled-config.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import { EventRecorder } from '../event-recorder.ts';
import { LeapClock } from '../leap-clock.ts';
import { type Mosquitto, startMosquitto } from '../peers/brokers.ts';
import { issuedBy, newAuthority } from '../peers/certificates.ts';
import { loopback, type Toml } from './site.ts';

/** The access rules that docs/bindings.md has for mosquitto. */
export function documentedRules(): string {
  const page = readFileSync(new URL('../../docs/bindings.md', import.meta.url), 'utf8');
  const [, rules] = /```acl\n([\s\S]*?)```/.exec(page) ?? [];
  if (rules === undefined) throw new Error('docs/bindings.md has no access rules');
  return rules;
}

/** A board: its configuration, and what it does. */
export class Board {
  readonly folder: string;
  readonly tables: Toml;
  readonly events = new EventRecorder();
  readonly clock: Clock;

  constructor(folder: string, tables: Toml, clock: Clock = new LeapClock()) {
    this.folder = folder;
    this.tables = tables;
    this.clock = clock;
  }

  get config() {
    return checkGatewayConfig(this.tables, 'test', this.events);
  }

  /** What a file of its identity holds, decrypted. */
  content(name: string): string {
    return identityFiles(this.tables as never)
      .read(join(this.folder, 'identity', name))
      .toString();
  }

  /** Enrols the board. Resolves with true when it had to ask. */
  async enrol(stop: AbortSignal = new AbortController().signal): Promise<boolean> {
    const { clock, events } = this;
    return await enrolIfNeeded(this.config, { clock, entropy: systemEntropy, events }, stop);
  }

  /** Puts the clock of the board forward. */
  async leap(milliseconds: number): Promise<void> {
    await (this.clock as LeapClock).leap(milliseconds);
  }

  /** Starts the gateway of an enrolled board, and waits for its connection to the broker. */
  async start(): Promise<Gateway> {
    const { clock, events } = this;
    const gateway = new Gateway(this.config, { events, clock, listInterfaces: loopback('IPv4') });
    const connected = events.next('mqtt.connected');
    await gateway.start();
    await connected;
    return gateway;
  }
}

/**
 * mosquitto with TLS and the access rules of the documentation, an authority, a claim certificate, and a head-end that enrols
 * boards. Everything ends with the site.
 */
export class EnrolmentSite implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly folder: string;
  readonly broker: Mosquitto;
  readonly authority: ReturnType<typeof newAuthority>;
  readonly claim: ReturnType<typeof issuedBy>;
  readonly #clocks: LeapClock[] = [];
  readonly headendEvents = new EventRecorder();

  static async open(): Promise<EnrolmentSite> {
    const folder = mkdtempSync(join(tmpdir(), 'postern-enrolment-'));
    const authority = newAuthority(folder);
    const broker = issuedBy(folder, 'broker', '/CN=localhost', ['subjectAltName=DNS:localhost,IP:127.0.0.1']);
    const rules = join(folder, 'acl');
    writeFileSync(rules, documentedRules());
    const mosquitto = await startMosquitto([
      `certfile ${broker.cert}`,
      `keyfile ${broker.key}`,
      `cafile ${authority['ca-cert']}`,
      'require_certificate true',
      'use_identity_as_username true',
      `acl_file ${rules}`,
      'allow_anonymous false',
      'user root',
    ]);
    return new EnrolmentSite(folder, authority, mosquitto);
  }

  private constructor(folder: string, authority: ReturnType<typeof newAuthority>, broker: Mosquitto) {
    this.folder = folder;
    this.authority = authority;
    this.broker = broker;
    this.claim = issuedBy(folder, 'claim');
    issuedBy(folder, 'dm.example');
    this.#stack.defer(() => rmSync(folder, { recursive: true }));
    this.#stack.use(broker);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  /** URL of the broker, with TLS. */
  get url(): string {
    return this.broker.url.replace('mqtt://127.0.0.1', 'mqtts://localhost');
  }

  /** The certificate authority that all trust. */
  get ca(): string {
    return this.authority['ca-cert'];
  }

  /** Makes another claim certificate, or a certificate of any other name. */
  issue(name: string): ReturnType<typeof issuedBy> {
    return issuedBy(this.folder, name);
  }

  /**
   * Starts a DM server, `dm.example`, and waits until boards can ask.
   * @param enrolment keys of its table `enrolment`
   * @param changes tables to be replaced
   */
  async headend(enrolment: Toml = {}, changes: Toml = {}, clock = new LeapClock()): Promise<Headend> {
    this.#clocks.push(clock);
    const config = checkConfig(
      headendConfigSchema,
      {
        headend: { id: 'dm.example', state: join(this.folder, 'headend.db'), 'session-timeout': 20 },
        mqtt: {
          url: this.url,
          ca: this.ca,
          cert: join(this.folder, 'dm.example.pem'),
          key: join(this.folder, 'dm.example.key'),
        },
        enrolment: { ...this.authority, ...enrolment },
        ...changes,
      },
      'test',
    );
    const before = this.headendEvents.count('mqtt.connected');
    const headend = this.#stack.use(new Headend(config, { events: this.headendEvents, clock }));
    headend.start();
    while (this.headendEvents.count('mqtt.connected') < before + 2) await this.headendEvents.nextOfAny();
    return headend;
  }

  /**
   * A board with its own folder.
   * @param enrolment keys of its table `enrolment`
   * @param folder of an earlier board, whose files it has
   */
  board(gateway: string, enrolment: Toml = {}, folder?: string, clock?: Clock): Board {
    const own = folder ?? mkdtempSync(join(this.folder, 'board-'));
    return new Board(
      own,
      {
        gateway: { id: gateway, state: join(own, 'state.db') },
        coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
        mqtt: { url: this.url, ca: this.ca },
        enrolment: { folder: join(own, 'identity'), ...this.claim, ...enrolment },
      },
      clock,
    );
  }

  /** Puts the clocks of head-ends forward, and resolves when both connections of one are up again. */
  async reconnected(): Promise<void> {
    const wanted = this.headendEvents.count('mqtt.disconnected') + 2;
    for (const clock of this.#clocks) await clock.leap(120_000);
    while (this.headendEvents.count('mqtt.connected') < wanted) await this.headendEvents.nextOfAny();
  }

  /** A board that was enrolled 16 days ago as `gw-1`, for 20 days. The head-end of that time is gone. */
  async lateBoard(): Promise<Board> {
    const clock = new LeapClock();
    clock.moveWall(-16 * 86_400_000);
    const headend = await this.headend({ days: 20, allow: [{ gateway: 'gw-1' }] }, {}, clock);
    const board = this.board('gw-1');
    await board.enrol();
    await headend[Symbol.asyncDispose]();
    return board;
  }

  /** Disposes of something when the site ends. */
  use<T extends AsyncDisposable>(party: T): T {
    return this.#stack.use(party);
  }
}

/** Takes state and identity of a board into another folder, and leaves nothing: the board itself, with its disk. */
export function moveBoard(from: string, to: string): void {
  for (const name of [
    ...['state.db', 'state.db-wal', 'state.db-shm', 'state.db.key', 'state.db.lock'],
    ...['identity', 'identity.key'],
  ])
    if (existsSync(join(from, name))) cpSync(join(from, name), join(to, name), { recursive: true });
  rmSync(from, { recursive: true });
}
