import { background } from '../base/background.ts';
import { PosternError } from '../base/errors.ts';
import type { EventFields } from '../base/event-fields.ts';
import type { EventName } from '../base/event-table.ts';
import type { Events } from '../base/events.ts';
import { softwareVersion } from '../base/version.ts';
import type { GatewayConfig } from '../gateway/config.ts';
import { AdminApi } from '../gateway/console/admin-api.ts';
import { ownSocket } from '../gateway/console/admin-socket.ts';
import { type EnrolmentWay, wayText } from '../gateway/northbound/enrolment.ts';

/** What a gateway says that serves nobody yet, or not any more. */
export interface WaitingStatus {
  readonly gateway: string;
  readonly software: string;
  /** What it waits for, for a person. */
  readonly waiting: string;
}

/**
 * Answers `postern status` while a gateway is enrolled or departs. It passes the events of that on, and says the latest one. Its
 * socket is made with the first event, so a gateway that need not wait has none.
 */
export class Waiting implements Events, AsyncDisposable {
  readonly #config: GatewayConfig;
  readonly #log: Events;
  readonly #admin: AdminApi;
  #waiting = '';
  /** Why the broker is not reached. Empty while it is. */
  #uplink = '';
  /** How an enrolment stands with its broker, once it has begun. */
  #way: (() => EnrolmentWay) | undefined;
  #started: Promise<unknown> | undefined;

  constructor(config: GatewayConfig, log: Events) {
    this.#config = config;
    this.#log = log;
    const refuse = () => {
      throw new PosternError('unavailable', `${config.gateway.id} serves nobody: ${this.status.waiting}`);
    };
    this.#admin = new AdminApi(
      config.gateway['admin-socket'] ?? ownSocket(),
      log,
      { '/status': () => this.status, '/devices': refuse, '/join': refuse, '/update': refuse },
      { '/update': refuse, '/update/cancel': refuse, '/backup': refuse, '/join': refuse, '/reset': refuse },
    );
  }

  get status(): WaitingStatus {
    const way = this.#way && wayText(this.#way());
    const uplink = way === undefined ? this.#uplink : way && `; ${way}`;
    return {
      gateway: this.#config.gateway.id,
      software: softwareVersion,
      waiting: this.#waiting + uplink,
    };
  }

  /** Resolves when the socket is there, or could not be made. Undefined before the first event. */
  get started(): Promise<unknown> | undefined {
    return this.#started;
  }

  /** To be called when an enrolment begins to ask, with how it stands with its broker. */
  asks(way: () => EnrolmentWay): void {
    this.#way = way;
  }

  emit(name: EventName, fields: EventFields): void {
    this.#log.emit(name, fields);
    const [subject = '', what] = name.split('.');
    if (name === 'mqtt.connected') this.#uplink = '';
    else if (name === 'mqtt.connect-failed' || name === 'mqtt.disconnected')
      this.#uplink = `; NOT CONNECTED to ${fields.url}: ${fields.reason}`;
    if (subject !== 'enrolment' && subject !== 'departure') return;
    this.#waiting = [`${subject} ${what}`, fields.reason].filter(Boolean).join(': ');
    this.#started ??= background(this.#log, 'admin-api', () => this.#admin.start());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#started;
    await this.#admin[Symbol.asyncDispose]();
  }
}
