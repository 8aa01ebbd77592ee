import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Settings of a `StockClient`. */
export interface StockClientOptions {
  /** HTTP or HTTPS URL of the DM server. */
  readonly url: string;
  readonly deviceId: string;
  readonly serverId: string;
  readonly user: string;
  readonly password: string;
  readonly serverPassword: string;
  /** Name in the proofs of the server (AAuthName); its ServerID when absent. */
  readonly serverName?: string;
  readonly auth: 'basic' | 'md5';
  /** Media type of the packages: WBXML if it contains `wbxml`, else XML. */
  readonly mediaType: string;
  /** PEM text of the authority that must certify the server. */
  readonly ca?: string;
  /** PEM texts of its own certificate and key. */
  readonly identity?: { readonly cert: string; readonly key: string };
  /** It sends a credential in each message. */
  readonly alwaysProves?: boolean;
  /** It sends all messages of a session to the URL of its account. */
  readonly ignoresRespUri?: boolean;
  /** It sends all messages over one connection. */
  readonly keepsConnection?: boolean;
  /** Address of its end of the connections. */
  readonly localAddress?: string;
}

/** What disturbs a session: nothing where it is absent. */
export interface Disturbance {
  /** The power fails after this many messages. */
  readonly messages?: number;
  /** Called after each message. */
  readonly between?: () => Promise<void>;
}

const b64 = (octets: Buffer | string) => Buffer.from(octets as string).toString('base64');
const md5 = (...parts: (string | Buffer)[]) => {
  const hash = createHash('md5');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const digest = (name: string, secret: string, nonce: Buffer) =>
  b64(md5(`${b64(md5(`${name}:${secret}`))}:`, nonce));

const doctype =
  '<!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd">';

/**
 * An OMA DM 1.2 client that uses nothing of Postern's engine or codecs: XML is written by hand, WBXML by libwbxml, and HTTP
 * is Node's. So it tests the gateway against an independent implementation.
 */
export class StockClient implements AsyncDisposable {
  readonly #options: StockClientOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), 'postern-stock-'));
  /** The tree: values of leaves by URI. */
  readonly nodes = new Map<string, string>();
  /** URIs of the nodes that the server executed. */
  readonly executed: string[] = [];
  /** Statuses of the server for the client's SyncHdr. */
  readonly statuses: string[] = [];
  /** Content types of the server's responses. */
  readonly types: string[] = [];
  /** Retry-After of the last response. */
  retryAfter: string | undefined;
  /** Status of the server for the client's command 3, which is the report of a session. */
  reported = '';
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #clientNonce = Buffer.alloc(0);
  #serverNonce = Buffer.alloc(0);

  constructor(options: StockClientOptions) {
    this.#options = options;
    this.nodes.set('./DevInfo/DevId', options.deviceId);
    for (const [name, value] of Object.entries({ Man: 'Stock', Mod: 'S1', DmV: '1.2', Lang: 'en' }))
      this.nodes.set(`./DevInfo/${name}`, value);
    this.nodes.set('./DevDetail/FwV', '7.1');
    this.nodes.set('./Site/Name', 'north');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    rmSync(this.#folder, { recursive: true });
  }

  /**
   * Runs one session, from package 1 until the server has no more commands. Returns the HTTP status that ended it, or 0 when
   * it did not end within 19 messages.
   * @param report XML of a further command for package 1, with CmdID 3
   */
  async session(sessionId = '5', report = '', disturbance: Disturbance = {}): Promise<number> {
    const { messages = 20, between } = disturbance;
    const { user, password, auth, deviceId, serverId, serverPassword, serverName = serverId } = this.#options;
    let authenticated = false;
    let serverProved = false;
    /** Where the next message goes: RespURI, as the representation protocol wants it. */
    let next = this.#options.url;
    const opening = () =>
      '<Alert><CmdID>1</CmdID><Data>1201</Data></Alert><Replace><CmdID>2</CmdID>' +
      [...this.nodes]
        .filter(([uri]) => uri.startsWith('./DevInfo/'))
        .map(([uri, value]) => `<Item><Source><LocURI>${uri}</LocURI></Source><Data>${value}</Data></Item>`)
        .join('') +
      `</Replace>${report}`;
    let body = opening();
    for (let msgId = 1; msgId <= messages; msgId++) {
      const credential =
        auth === 'basic' ? b64(`${user}:${password}`) : digest(user, password, this.#clientNonce);
      const cred =
        authenticated && !this.#options.alwaysProves
          ? ''
          : `<Cred><Meta><Format xmlns="syncml:metinf">b64</Format><Type xmlns="syncml:metinf">syncml:auth-${auth}</Type></Meta><Data>${credential}</Data></Cred>`;
      const { status, text } = await this.#post(
        `<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>${sessionId}</SessionID><MsgID>${msgId}</MsgID><Target><LocURI>${serverId}</LocURI></Target><Source><LocURI>${deviceId}</LocURI><LocName>${user}</LocName></Source>${cred}<Meta><MaxMsgSize xmlns="syncml:metinf">16384</MaxMsgSize></Meta></SyncHdr><SyncBody>${body}<Final/></SyncBody></SyncML>`,
        this.#options.ignoresRespUri ? this.#options.url : next,
      );
      await between?.();
      next = /<RespURI>([^<]*)</.exec(text)?.[1] ?? next;
      if (status !== 200) return status;
      if (report !== '')
        this.reported = /<CmdRef>3<\/CmdRef>.*?<Data>(\d+)</s.exec(text)?.[1] ?? this.reported;
      const header = /<Status>(?:(?!<\/Status>).)*<CmdRef>0<\/CmdRef>.*?<\/Status>/s.exec(text)?.[0] ?? '';
      const code = /<Data>(\d+)<\/Data>/.exec(header)?.[1] ?? '-';
      this.statuses.push(code);
      const nonce = /<NextNonce[^>]*>([^<]*)</.exec(header)?.[1];
      if (nonce !== undefined) this.#clientNonce = Buffer.from(nonce, 'base64');
      if (code === '401' || code === '407') {
        body = opening();
        continue;
      }
      authenticated = code === '212';
      const shown = /<SyncHdr>.*<Cred>.*?<Data>([^<]*)<\/Data>.*<\/SyncHdr>/s.exec(text)?.[1];
      serverProved ||=
        shown === digest(serverName, serverPassword, this.#serverNonce) ||
        shown === b64(`${serverName}:${serverPassword}`);
      const commands = [...text.matchAll(/<(Get|Replace|Exec|Add|Delete)>(.*?)<\/\1>/gs)];
      if (serverProved && commands.length === 0) return 200;
      let id = 1;
      const ref = (cmdRef: string, cmd: string, data: number, more = '') =>
        `<Status><CmdID>${id++}</CmdID><MsgRef>${msgId}</MsgRef><CmdRef>${cmdRef}</CmdRef><Cmd>${cmd}</Cmd>${more}<Data>${data}</Data></Status>`;
      if (serverProved) body = ref('0', 'SyncHdr', 212);
      else {
        this.#serverNonce = Buffer.from(`nonce-${msgId}`);
        const chal = `<Chal><Meta><Format xmlns="syncml:metinf">b64</Format><Type xmlns="syncml:metinf">syncml:auth-md5</Type><NextNonce xmlns="syncml:metinf">${b64(this.#serverNonce)}</NextNonce></Meta></Chal>`;
        body = ref('0', 'SyncHdr', 401, chal);
      }
      for (const [, name = '', inner = ''] of commands)
        body += serverProved
          ? this.#do(name, inner, ref, () => id++, msgId)
          : ref(/<CmdID>(\d+)/.exec(inner)![1]!, name, 401);
    }
    return 0;
  }

  #do(
    name: string,
    inner: string,
    ref: (cmdRef: string, cmd: string, data: number) => string,
    nextId: () => number,
    msgId: number,
  ): string {
    const cmdRef = /<CmdID>(\d+)/.exec(inner)![1]!;
    const uri = /<LocURI>([^<]*)</.exec(inner)?.[1] ?? '';
    const data = /<Data>(?:<!\[CDATA\[)?([^<\]]*)/.exec(inner)?.[1] ?? '';
    if (name === 'Exec') {
      this.executed.push(uri);
      return ref(cmdRef, name, 200);
    }
    if (name === 'Add' && uri === './Inbox') {
      this.nodes.set(uri, data);
      return ref(cmdRef, name, 200);
    }
    if (name === 'Replace') {
      if (!this.nodes.has(uri)) return ref(cmdRef, name, 404);
      this.nodes.set(uri, data);
      return ref(cmdRef, name, 200);
    }
    const children = [...this.nodes.keys()]
      .filter((key) => key.startsWith(`${uri}/`))
      .map((key) => key.slice(uri.length + 1));
    const value = this.nodes.get(uri) ?? (children.length > 0 ? children.join('/') : undefined);
    if (value === undefined) return ref(cmdRef, name, 404);
    const format = this.nodes.has(uri) ? 'chr' : 'node';
    return (
      ref(cmdRef, name, 200) +
      `<Results><CmdID>${nextId()}</CmdID><MsgRef>${msgId}</MsgRef><CmdRef>${cmdRef}</CmdRef><Item><Source><LocURI>${uri}</LocURI></Source><Meta><Format xmlns="syncml:metinf">${format}</Format></Meta><Data>${value}</Data></Item></Results>`
    );
  }

  /** Sends a message that anyone could write, who has no credential. Returns the status of its header. */
  async forge(msgId: number, sessionId = '5'): Promise<string | undefined> {
    const { deviceId, serverId } = this.#options;
    const { text } = await this.#post(
      `<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>${sessionId}</SessionID><MsgID>${msgId}</MsgID><Target><LocURI>${serverId}</LocURI></Target><Source><LocURI>${deviceId}</LocURI></Source></SyncHdr><SyncBody><Alert><CmdID>1</CmdID><Data>1201</Data></Alert><Final/></SyncBody></SyncML>`,
    );
    return /<Cmd>SyncHdr<\/Cmd>.*?<Data>(\d+)</s.exec(text)?.[1];
  }

  async #post(xml: string, url = this.#options.url): Promise<{ status: number; text: string }> {
    const { mediaType, ca, identity, localAddress, keepsConnection } = this.#options;
    const packed = mediaType.includes('wbxml') ? this.#pack(xml) : Buffer.from(`<?xml version="1.0"?>${xml}`);
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const send = url.startsWith('https:') ? httpsRequest : httpRequest;
    const outgoing = send(
      url,
      {
        method: 'POST',
        headers: { 'content-type': mediaType, 'content-length': packed.length },
        ...(ca !== undefined && { ca }),
        ...identity,
        ...(localAddress !== undefined && { localAddress }),
        agent: keepsConnection ? this.#agent : false,
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const body = Buffer.concat(chunks);
          const type = response.headers['content-type'] ?? '';
          this.types.push(type);
          this.retryAfter = response.headers['retry-after'];
          const status = response.statusCode ?? 0;
          resolve({
            status,
            text: status === 200 && type.includes('wbxml') ? this.#unpack(body) : body.toString(),
          });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(packed);
    return await promise;
  }

  #pack(xml: string): Buffer {
    const [from, to] = [join(this.#folder, 'a.xml'), join(this.#folder, 'a.wbxml')];
    writeFileSync(from, `<?xml version="1.0"?>${doctype}${xml}`);
    execFileSync('xml2wbxml', ['-o', to, from], { stdio: 'pipe' });
    return readFileSync(to);
  }

  #unpack(wbxml: Buffer): string {
    const [from, to] = [join(this.#folder, 'b.wbxml'), join(this.#folder, 'b.xml')];
    writeFileSync(from, wbxml);
    execFileSync('wbxml2xml', ['-m', '0', '-o', to, from], { stdio: 'pipe' });
    return readFileSync(to, 'utf8');
  }
}
