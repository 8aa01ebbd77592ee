import { systemEntropy } from '../../src/base/entropy.ts';
import { ClientSession } from '../../src/dm/client-session.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import type { TransportKey } from '../../src/mo/device-record.ts';
import { type DmAccount, readAccount } from '../../src/mo/dm-acc.ts';
import { type CoapCall, call } from '../../src/wire/coap/blockwise-client.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { contentFormatOf } from '../../src/wire/coap/content-formats.ts';
import { Option } from '../../src/wire/coap/options.ts';
import { ownKey, peerTrust } from '../../src/wire/secure/dtls/certificates.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { decodeTnds } from '../../src/wire/syncml/tnds.ts';
import { siteTree } from '../dm/parties.ts';
import { type Issued, issue } from '../wire/secure/dtls/authority.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';

const xml = contentFormatOf(MediaType.Xml)!;

/** A device with a key pair that no gateway knows, by our own client of DTLS. */
export class Joiner implements AsyncDisposable {
  readonly end: SocketEnd;
  readonly key: Issued;
  readonly #gateway: Gateway;
  #isOver = false;

  private constructor(end: SocketEnd, gateway: Gateway, key: Issued) {
    this.end = end;
    this.#gateway = gateway;
    this.key = key;
  }

  static async open(
    gateway: Gateway,
    key: Issued = issue({ commonNames: ['says nothing'] }),
  ): Promise<Joiner> {
    return new Joiner(await SocketEnd.open({ server: undefined as never }), gateway, key);
  }

  /**
   * Opens an association by the key.
   * @param gatewayKey the public key of the gateway
   * @param isRaw as a raw public key, and not in the certificate, which nobody that the gateway knows has signed
   */
  async connect(gatewayKey: Issued, isRaw = true): Promise<void> {
    const own = ownKey(this.key.keyPem, isRaw ? undefined : this.key.pem);
    const trust = peerTrust(own, [], [['gateway', gatewayKey.publicPem]]);
    await this.end.dtls.connect(this.#place, {
      identity: 'own',
      key: undefined as never,
      certificates: { own, trust, serverName: 'gateway' },
    });
  }

  get #place() {
    return { address: '127.0.0.1', port: this.#gateway.coapsPort!, local: '' };
  }

  async ask(request: Omit<CoapCall, 'timeout'>, timeout = 10_000) {
    const { address, port } = this.#place;
    const answer = await call(this.end.coap, systemEntropy, address, port, { timeout, ...request });
    return { ...answer, name: codeText(answer.code) };
  }

  /** Asks for an account under a name. Returns the code of the answer, and the account. */
  async bootstrap(
    id: string,
    timeout?: number,
  ): Promise<{ code: string; account?: DmAccount; isMacked?: boolean }> {
    const request = { method: Code.POST, path: ['dm', 'bs'], query: [`id=${id}`], accept: xml };
    const { name, payload, options } = await this.ask(request, timeout);
    if (name !== '2.04') return { code: name };
    const { commands } = decodeMessage(payload, MediaType.Xml);
    const [command] = commands;
    if (command?.name !== 'Add') throw new Error('no Add in the bootstrap');
    const account = readAccount(decodeTnds(command.items[0]?.data ?? '').root);
    return {
      code: name,
      account,
      isMacked: options.some(({ number }) => number === Option.BootstrapMac.number),
    };
  }

  /** Registers as an LwM2M client. */
  async register(id: string): Promise<string> {
    const query = [`ep=${id}`, 'lt=60', 'lwm2m=1.1', 'b=U'];
    const payload = Buffer.from('</1/0>,</3/0>');
    return (await this.ask({ method: Code.POST, path: ['rd'], query, contentFormat: 40, payload })).name;
  }

  /** A session with the gateway, over an association by the key of the account. Returns the outcome. */
  async session(id: string, { own, peer, transport, serverId }: DmAccount): Promise<number | undefined> {
    const { identity, key } = transport as TransportKey;
    await this.end.dtls.connect(this.#place, { identity, key: Buffer.from(key) });
    const session = new ClientSession({
      ends: { local: id, remote: serverId },
      account: { own, peer },
      saveNonces: () => {},
      tree: siteTree().tree,
      entropy: systemEntropy,
      sessionId: '1',
      notified: false,
    });
    let next: SyncmlMessage | undefined = session.start();
    for (let sent = 0; next && sent < 20; sent++) {
      const answer = await this.ask({
        method: Code.POST,
        path: ['dm'],
        contentFormat: xml,
        payload: encodeMessage(next, MediaType.Xml),
      });
      next = await session.receive(decodeMessage(answer.payload, MediaType.Xml));
    }
    return session.outcome?.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    await this.end[Symbol.asyncDispose]();
  }
}
