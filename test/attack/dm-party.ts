import { systemEntropy } from '../../src/base/entropy.ts';
import { ClientSession, type OutgoingAlert, runClientSession } from '../../src/dm/client-session.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import type { TreeBranch } from '../../src/dm/tree-branch.ts';
import { accountOf, requestBootstrap } from '../../src/mo/bootstrap-request.ts';
import { devInfo, devInfoNodes } from '../../src/mo/dev-info.ts';
import type { DmAccount } from '../../src/mo/dm-acc.ts';
import type { CoapAnswer, CoapCall } from '../../src/wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../src/wire/coap/codes.ts';
import { contentFormatOf } from '../../src/wire/coap/content-formats.ts';
import { Option, opaque, uintOption } from '../../src/wire/coap/options.ts';
import { factoryIdentity, factoryKey } from '../../src/wire/secure/transport-keys.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { sessionIdText } from '../../src/wire/syncml/notification.ts';
import { secrets } from '../bench/crowd.ts';
import type { KeyedParty } from './keyed-party.ts';

/** An alert that a party sends. */
export type Report = Omit<OutgoingAlert, 'settled'>;

/** A device of `gw-1` with an account from its factory secret, which has sessions with the gateway. */
export class DmParty {
  readonly id: string;
  readonly #ask: (call: Omit<CoapCall, 'timeout'>) => Promise<CoapAnswer>;
  readonly #tree: ManagementTree;
  #account: DmAccount | undefined;
  #sessions = 0;
  /** Sessions run one after the other: each needs the nonces of the one before. */
  #running: Promise<unknown> = Promise.resolve();

  /**
   * @param ask sends a request to the gateway by the key of the account
   * @param branches of its tree, besides DevInfo
   */
  constructor(
    id: string,
    ask: (call: Omit<CoapCall, 'timeout'>) => Promise<CoapAnswer>,
    branches: Readonly<Record<string, TreeBranch>> = {},
  ) {
    this.id = id;
    this.#ask = ask;
    const info = new StoredBranch('DevInfo', devInfo.root, new MemoryNodes(), { type: devInfo.id });
    info.plant([], devInfoNodes({ deviceId: id, manufacturer: 'Attack', model: 'Child' }));
    this.#tree = new ManagementTree({ DevInfo: info, ...branches }, new MemoryAcls({ '.': 'Get=*' }));
  }

  /** Gets an account by its factory secret, over DTLS. Returns its key. */
  async bootstrap(party: KeyedParty): Promise<{ readonly identity: string; readonly key: Buffer }> {
    const { id } = this;
    const secret = secrets.factory(id);
    await party.connect({ identity: factoryIdentity(id), key: factoryKey(secret, id) });
    const issued = await requestBootstrap(id, secret, systemEntropy, async (options, payload) => {
      const answer = await party.ask({
        method: Code.POST,
        path: ['dm', 'bs'],
        query: [`id=${id}`],
        options: Object.entries(options).map(([number, value]) => opaque({ number: Number(number) }, value)),
        ...(payload && { payload }),
      });
      return {
        isSuccess: isSuccess(answer.code),
        description: codeText(answer.code),
        contentFormat: uintOption(answer.options, Option.ContentFormat),
        payload: answer.payload,
        option: (number) => answer.options.find((option) => option.number === number)?.value,
      };
    });
    this.#account = accountOf(issued, id, secret);
    const { transport } = this.#account;
    if (!transport || !('key' in transport)) throw new Error('the account has no key');
    return { identity: transport.identity, key: Buffer.from(transport.key) };
  }

  /**
   * Reports in a session, or in the one that Package #0 asks for. Returns the status of each alert; undefined for one that got none.
   * @throws when the session fails
   */
  async report(alerts: readonly Report[], notifiedId?: string): Promise<(number | undefined)[]> {
    const run = this.#running.then(() => this.#report(alerts, notifiedId));
    this.#running = run.catch(() => {});
    return await run;
  }

  async #report(alerts: readonly Report[], notifiedId: string | undefined): Promise<(number | undefined)[]> {
    const account = this.#account!;
    const statuses: (number | undefined)[] = alerts.map(() => undefined);
    const settled = (at: number) => (status: number) => {
      statuses[at] = status;
    };
    const session = new ClientSession({
      ends: { local: this.id, remote: account.serverId },
      account,
      saveNonces: ({ own, peer }) => {
        this.#account = {
          ...this.#account!,
          own: { ...this.#account!.own, ...(own && { nonce: own }) },
          peer: { ...this.#account!.peer, ...(peer && { nonce: peer }) },
        };
      },
      tree: this.#tree,
      entropy: systemEntropy,
      sessionId: notifiedId ?? sessionIdText((this.#sessions++ & 0x7fff) + 1),
      notified: notifiedId !== undefined,
      alerts: alerts.map((alert, at) => ({ ...alert, settled: settled(at) })),
    });
    const outcome = await runClientSession(session, async (message) => {
      const { code, payload } = await this.#ask({
        method: Code.POST,
        path: ['dm'],
        contentFormat: contentFormatOf(MediaType.Wbxml)!,
        payload: encodeMessage(message, MediaType.Wbxml),
      });
      if (!isSuccess(code)) throw new Error(`${codeText(code)} ${Buffer.from(payload).toString()}`);
      return { message: decodeMessage(payload, MediaType.Wbxml) };
    });
    if (outcome.status !== 200) throw new Error(`${outcome.status}: ${outcome.reason}`);
    return statuses;
  }
}
