import type { CoapAnswer } from './coap-socket.ts';
import type { Lwm2mHabits } from './lwm2m-habits.ts';
import { content } from './lwm2m-objects.ts';
import { decodeValues } from './lwm2m-values.ts';

/** An account as the object Security has it. */
export interface Account {
  readonly uri: string;
  readonly isBootstrap: boolean;
  readonly shortServerId: number;
}

/** The accounts of a client, and its side of the bootstrap interface (LwM2M core 1.1, section 6.1). */
export class Lwm2mAccounts {
  readonly #habits: Lwm2mHabits;
  /** Instances of the object Security, by ID. */
  readonly security = new Map<number, Account>();
  /** Short Server IDs and lifetimes of the object Server, by instance. */
  readonly servers = new Map<number, { readonly shortServerId: number; readonly lifetime: number }>();
  readonly complaints: string[] = [];
  #finished: (() => void) | undefined;

  constructor(habits: Lwm2mHabits) {
    this.#habits = habits;
    const own = { uri: 'coap://192.0.2.1', isBootstrap: true, shortServerId: 0 };
    this.security.set(habits.ownAt, own);
    // What an earlier owner left.
    this.security.set(habits.ownAt === 1 ? 0 : 1, {
      uri: 'coap://198.51.100.9',
      isBootstrap: false,
      shortServerId: 77,
    });
    this.servers.set(0, { shortServerId: 77, lifetime: 60 });
  }

  /** Accounts but that of the bootstrap server. */
  get given(): readonly Account[] {
    return [...this.security.values()].filter(({ isBootstrap }) => !isBootstrap);
  }

  /** Resolves at the next Bootstrap-Finish. */
  async finished(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#finished = resolve;
    });
  }

  get isInBootstrap(): boolean {
    return this.#finished !== undefined;
  }

  /** Answers a request of the bootstrap server. Undefined for one that is about other objects. */
  do(code: string, path: string, body: Buffer, contentFormat: number): CoapAnswer | undefined {
    if (!this.isInBootstrap) return undefined;
    if (code === '0.01' && path === '') return this.#discover();
    if (code === '0.02' && path === 'bs') {
      this.#finished?.();
      this.#finished = undefined;
      return { code: '2.04' };
    }
    const [object = '', instance] = path.split('/');
    if (code === '0.04') return this.#delete(object, instance);
    if (code !== '0.03' || (object !== '0' && object !== '1')) return undefined;
    return this.#write(path, decodeValues(contentFormat, body, path));
  }

  /** Takes a bootstrap pack. Returns whether it has an account. */
  unpack(values: ReadonlyMap<string, unknown>): boolean {
    for (const id of [...this.security.keys()])
      if (!this.security.get(id)?.isBootstrap) this.security.delete(id);
    this.servers.clear();
    const instances = new Set([...values.keys()].map((path) => path.split('/').slice(0, 2).join('/')));
    for (const instance of instances) if (/^[01]\//.test(instance)) this.#write(instance, values);
    return this.given.length > 0;
  }

  #discover(): CoapAnswer {
    const { discovers } = this.#habits;
    if (discovers === 'nothing') return { code: '4.05' };
    const ssid = (id: number) => (discovers === 'with-ssid' ? `;ssid=${id}` : '');
    const links = [
      '</>;lwm2m="1.1"',
      ...[...this.security].map(
        ([id, each]) => `</0/${id}>${each.isBootstrap ? '' : ssid(each.shortServerId)}`,
      ),
      ...[...this.servers].map(([id, each]) => `</1/${id}>${ssid(each.shortServerId)}`),
      '</3/0>',
      '</33333/0>',
    ];
    return content(40, Buffer.from(links.join(',')));
  }

  #delete(object: string, instance: string | undefined): CoapAnswer {
    if (object !== '0' && object !== '1') {
      if (object !== '2' && object !== '21')
        this.complaints.push(`the bootstrap deletes ${object}/${instance}`);
      return { code: '4.04' };
    }
    const kept: Map<number, unknown> = object === '0' ? this.security : this.servers;
    const ids = instance === undefined ? [...kept.keys()] : [Number(instance)];
    for (const id of ids) {
      const isOwn = object === '0' && this.security.get(id)?.isBootstrap;
      if (isOwn && instance !== undefined) return { code: '4.00' };
      if (!isOwn && !kept.delete(id)) return { code: '4.04' };
    }
    return { code: '2.02' };
  }

  #write(path: string, values: ReadonlyMap<string, unknown>): CoapAnswer {
    const [object, instance] = path.split('/');
    const id = Number(instance);
    const at = (resource: number) => values.get(`${object}/${instance}/${resource}`);
    const number = (value: unknown): number =>
      value instanceof Uint8Array ? Buffer.from(value).readUIntBE(0, value.length) : Number(value);
    const text = (value: unknown): string =>
      value instanceof Uint8Array ? Buffer.from(value).toString() : String(value);
    if (object === '1') {
      this.servers.set(id, { shortServerId: number(at(0)), lifetime: number(at(1)) });
      return { code: '2.04' };
    }
    if (this.security.get(id)?.isBootstrap) {
      this.complaints.push('the bootstrap overwrites the account of the bootstrap server');
      return { code: '4.00' };
    }
    this.security.set(id, {
      uri: text(at(0)),
      isBootstrap: number(at(1)) === 1,
      shortServerId: number(at(10)),
    });
    return { code: '2.04' };
  }
}
