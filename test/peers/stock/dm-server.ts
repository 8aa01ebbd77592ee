import { challenge, credential, nonceIn, proofOf } from './account.ts';
import { plain, textOf } from './client-tree.ts';
import type { Dice } from './dice.ts';
import {
  allIn,
  at,
  maybe,
  type Part,
  part,
  partsOf,
  read,
  textAt,
  type Writing,
  write,
  writingBy,
} from './markup.ts';

/** The habits of an OMA DM server. */
export interface ServerHabits {
  readonly writing: Writing;
  readonly maxMsgSize: number | undefined;
  readonly maxObjSize: number | undefined;
  readonly scheme: 'basic' | 'md5';
  readonly shows: 'always' | 'until-accepted' | 'when-asked';
  readonly forgotNonce: boolean;
  /** It gives the client a new nonce with each Status of a header. */
  readonly renewsNonce: boolean;
  readonly dots: boolean;
  readonly sizeAt: 'item' | 'command';
  readonly sizeOfOctets: 'coded' | 'octets';
  readonly metaAt: 'item' | 'command';
  readonly metaInEachChunk: boolean;
  readonly chunk: number;
  readonly perMessage: number;
  /** How often it wants no Status of a command. */
  readonly noResponse: number;
  readonly references: boolean;
  /** The statuses for the client's commands come after its own commands. */
  readonly statusesLast: boolean;
  readonly abortsAfter: number;
}

export const serverHabits = (dice: Dice): ServerHabits => ({
  writing: writingBy(dice),
  maxMsgSize: dice.chance(0.2) ? undefined : dice.between(400, 5000),
  maxObjSize: dice.pick([undefined, undefined, 4_294_967_295, dice.between(50, 3000)]),
  scheme: dice.pick(['md5', 'md5', 'basic']),
  shows: dice.pick(['always', 'until-accepted', 'when-asked']),
  forgotNonce: dice.chance(0.3),
  renewsNonce: dice.chance(0.5),
  dots: dice.chance(0.7),
  sizeAt: dice.pick(['item', 'command']),
  sizeOfOctets: dice.pick(['coded', 'octets']),
  metaAt: dice.pick(['item', 'command']),
  metaInEachChunk: dice.chance(0.3),
  chunk: dice.pick([3, 5, 64, 700, 20_000]),
  perMessage: dice.pick([1, 2, 5, 64]),
  noResponse: dice.pick([0, 0, 0.3]),
  references: dice.chance(0.5),
  statusesLast: dice.chance(0.2),
  abortsAfter: dice.chance(0.03) ? dice.between(1, 5) : Number.POSITIVE_INFINITY,
});

/** An operation, and what the client has answered to it. */
export interface Wanted {
  readonly name: 'Get' | 'Replace' | 'Add' | 'Delete' | 'Copy' | 'Exec' | 'Atomic' | 'Sequence';
  /** Without `./`. */
  readonly uri: string;
  readonly from?: string;
  readonly format?: string;
  readonly value?: string | Buffer;
  readonly inner?: readonly Wanted[];
  /** The client gives no Status. */
  silent?: boolean;
  status?: number;
  /** Values by URI. */
  readonly found: Map<string, string>;
}

export interface DmServerParts {
  readonly dice: Dice;
  readonly habits: ServerHabits;
  readonly deviceId: string;
  readonly serverId: string;
  readonly secret: string;
  readonly clientSecret: string;
  readonly nonces: { readonly client: Buffer; readonly server: Buffer };
  readonly rounds: readonly (readonly Wanted[])[];
}

interface Waiting {
  readonly command: Part;
  readonly of: readonly Wanted[];
  readonly sent: number;
}

/** Chunks of the size that the habits say; those after them are larger. */
const smallChunks = 20;

/** An OMA DM server with an own reading of the protocol. Postern's codecs read what the client sends. */
export class DmServer {
  readonly #parts: DmServerParts;
  readonly complaints: string[] = [];
  /** How the session ended, in the words of this side. */
  end: string | undefined;
  #rounds: (readonly Wanted[])[];
  #queue: Waiting[] = [];
  #statuses: Part[] = [];
  #batch: readonly Part[] = [];
  #batchOf: readonly (readonly Wanted[])[] = [];
  #isBatchFinal = false;
  #sent = new Map<string, readonly Wanted[]>();
  #msgId = 0;
  #clientProved = false;
  #isAccepted = false;
  #wasAsked = false;
  #nonce: Buffer;
  #clientNonce: Buffer;
  #chunks = 0;
  #begun: { readonly size: number; data: string } | undefined;
  #limitsKnown = false;

  constructor(parts: DmServerParts) {
    this.#parts = parts;
    this.#rounds = [...parts.rounds];
    this.#nonce = parts.habits.forgotNonce ? Buffer.from('another') : parts.nonces.server;
    this.#clientNonce = parts.nonces.client;
  }

  /** Takes a message of the client, and answers it. */
  answer(body: Uint8Array): Buffer {
    const { habits, dice } = this.#parts;
    return write(this.#answer(body), habits.writing, dice);
  }

  #answer(octets: Uint8Array): Part {
    const { habits, clientSecret, deviceId, dice } = this.#parts;
    const { maxMsgSize = Number.POSITIVE_INFINITY } = habits;
    const message = read(octets, habits.writing);
    const head = at(message, 'SyncHdr');
    const body = at(message, 'SyncBody');
    const msgRef = textAt(head, 'MsgID') ?? '';
    const commands = partsOf(body?.content ?? []).filter(({ name }) => name !== 'Final' && name !== 'Status');
    const statuses = body ? allIn(body, 'Status') : [];
    const isFinal = body !== undefined && allIn(body, 'Final').length > 0;
    const verdict = statuses.find((each) => textAt(each, 'CmdRef') === '0');
    const code = textAt(verdict, 'Data');
    if (octets.length > maxMsgSize && this.#limitsKnown && code !== '413')
      this.complaints.push(`message ${msgRef}: ${octets.length} octets, of ${maxMsgSize}`);
    this.#limitsKnown = true;
    const shown = textAt(head, 'Cred', 'Data');
    const isProof = shown === proofOf('md5', deviceId, clientSecret, this.#clientNonce);
    this.#clientProved ||= isProof;
    if (!this.#clientProved) {
      this.#clientNonce = dice.octets(8);
      const refused = commands
        .filter(({ name }) => name !== 'Results')
        .map((each) => this.#status(msgRef, textAt(each, 'CmdID') ?? '', each.name, shown ? 401 : 407));
      const asks = this.#status(msgRef, '0', 'SyncHdr', shown ? 401 : 407, [challenge(this.#clientNonce)]);
      return this.#message([asks, ...refused], [], isFinal, []);
    }
    if (isProof && habits.renewsNonce) this.#clientNonce = dice.octets(8);
    const chal = isProof && habits.renewsNonce ? [challenge(this.#clientNonce)] : [];
    const lead = [this.#status(msgRef, '0', 'SyncHdr', 212, chal)];
    const nonce = nonceIn(verdict, (from) => at(from, 'Chal', 'Meta', 'NextNonce'));
    if (nonce) this.#nonce = nonce;
    if (code === '401' || code === '407') {
      this.#wasAsked = true;
      return this.#message(lead, this.#batch, this.#isBatchFinal, this.#batchOf);
    }
    if (code !== undefined && code !== '200' && code !== '212') this.end = code;
    this.#isAccepted ||= code === '212';
    for (const status of statuses) this.#heed(status);
    for (const command of commands) this.#take(command, msgRef);
    if (this.#msgId >= habits.abortsAfter) {
      this.end = 'aborted';
      return this.#message(lead, [part('Alert', [part('Data', '1223')])], true, []);
    }
    if (!isFinal) {
      const asks = this.#queue.length === 0 ? [part('Alert', [part('Data', '1222')])] : [];
      if (asks.length > 0) return this.#message([...lead, ...this.#statuses.splice(0)], asks, false, []);
    }
    if (this.#queue.length === 0 && isFinal)
      for (const wanted of this.#rounds.shift() ?? []) this.#push(wanted);
    const { batch, of } = this.#next();
    const isLast = this.#queue.length === 0;
    if (isLast && batch.length === 0) this.end ??= 'done';
    const own = this.#statuses.splice(0);
    const lists: [Part[], readonly (readonly Wanted[])[]] = habits.statusesLast
      ? [
          [...batch, ...own],
          [...of, ...own.map(() => [])],
        ]
      : [
          [...own, ...batch],
          [...own.map(() => []), ...of],
        ];
    return this.#message(lead, lists[0], isLast, lists[1]);
  }

  #message(
    lead: readonly Part[],
    batch: readonly Part[],
    isFinal: boolean,
    of: readonly (readonly Wanted[])[],
  ): Part {
    const { habits, deviceId, serverId, secret } = this.#parts;
    const { maxMsgSize, maxObjSize, scheme, shows } = habits;
    this.#batch = batch;
    this.#batchOf = of;
    this.#isBatchFinal = isFinal;
    this.#msgId++;
    const isShown =
      this.#clientProved &&
      (shows === 'always' || (!this.#isAccepted && (shows === 'until-accepted' || this.#wasAsked)));
    const sizes = [
      ...maybe('MaxMsgSize', maxMsgSize === undefined ? undefined : String(maxMsgSize)),
      ...maybe('MaxObjSize', maxObjSize === undefined ? undefined : String(maxObjSize)),
    ];
    let id = 0;
    const numbered = (command: Part, wanted: readonly Wanted[]): Part => {
      const cmdId = String(++id);
      this.#sent.set(`${this.#msgId} ${cmdId}`, wanted);
      const inner = wanted[0]?.inner ?? [];
      let place = 0;
      const content = partsOf(command.content).map((each) =>
        inner.length > 0 && composed.has(each.name) ? numbered(each, [inner[place++]!]) : each,
      );
      return part(command.name, [part('CmdID', cmdId), ...content]);
    };
    const commands = [
      ...lead.map((each) => numbered(each, [])),
      ...batch.map((each, place) => numbered(each, of[place] ?? [])),
    ];
    return part('SyncML', [
      part('SyncHdr', [
        part('VerDTD', '1.2'),
        part('VerProto', 'DM/1.2'),
        part('SessionID', '1'),
        part('MsgID', String(this.#msgId)),
        part('Target', [part('LocURI', deviceId)]),
        part('Source', [part('LocURI', serverId), part('LocName', serverId)]),
        ...(isShown ? [credential(scheme, proofOf(scheme, serverId, secret, this.#nonce))] : []),
        ...(sizes.length > 0 ? [part('Meta', sizes)] : []),
      ]),
      part('SyncBody', [...commands, ...(isFinal ? [part('Final')] : [])]),
    ]);
  }

  #status(msgRef: string, cmdRef: string, cmd: string, data: number, more: readonly Part[] = []): Part {
    const { references, dots } = this.#parts.habits;
    const target = references && cmdRef === '0' ? [part('TargetRef', this.#parts.serverId)] : [];
    return part('Status', [
      part('MsgRef', msgRef),
      part('CmdRef', cmdRef),
      part('Cmd', cmd),
      ...(dots ? target : []),
      ...more,
      part('Data', String(data)),
    ]);
  }

  #push(wanted: Wanted): void {
    const silent = this.#parts.dice.chance(this.#parts.habits.noResponse) && !wanted.inner;
    wanted.silent = silent;
    this.#queue.push({ command: this.#command(wanted), of: [wanted], sent: 0 });
  }

  #uri(uri: string): string {
    return this.#parts.habits.dots ? `./${uri}` : uri;
  }

  #command({ name, uri, from, format, value, inner, silent }: Wanted): Part {
    const { metaAt } = this.#parts.habits;
    if (inner)
      return part(
        name,
        inner.map((each) => this.#command(each)),
      );
    const meta =
      format === undefined ? [] : [part('Meta', [part('Format', format === 'bin' ? 'b64' : format)])];
    const item = part('Item', [
      part('Target', [part('LocURI', this.#uri(uri))]),
      ...(from === undefined ? [] : [part('Source', [part('LocURI', this.#uri(from))])]),
      ...(metaAt === 'item' ? meta : []),
      ...maybe('Data', value === undefined ? undefined : textOf(value)),
    ]);
    return part(name, [...(silent ? [part('NoResp')] : []), ...(metaAt === 'command' ? meta : []), item]);
  }

  #next(): { batch: Part[]; of: (readonly Wanted[])[] } {
    const batch: Part[] = [];
    const of: (readonly Wanted[])[] = [];
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      const chunk = this.#chunkOf(next);
      batch.push(chunk ?? next.command);
      of.push(next.of);
      if (chunk || batch.length >= this.#parts.habits.perMessage) break;
    }
    return { batch, of };
  }

  #chunkOf({ command, of, sent }: Waiting): Part | undefined {
    const { habits } = this.#parts;
    const [wanted] = of;
    const item = allIn(command, 'Item')[0];
    const data = textAt(item, 'Data');
    const size = this.#chunks < smallChunks ? habits.chunk : 20_000;
    if (!item || !wanted || data === undefined || (sent === 0 && data.length <= size)) return undefined;
    this.#chunks++;
    let end = Math.min(data.length, sent + size);
    if (/[\ud800-\udbff]/.test(data.charAt(end - 1))) end++;
    const isLast = end >= data.length;
    if (!isLast) this.#queue.unshift({ command, of, sent: end });
    const isCoded = Buffer.isBuffer(wanted.value) && habits.sizeOfOctets === 'octets';
    const whole = isCoded ? (wanted.value as Buffer).length : Buffer.byteLength(data);
    const sizes = sent === 0 ? [part('Size', String(whole))] : [];
    const isMeta = sent === 0 || habits.metaInEachChunk;
    const metaOf = (from: Part, place: 'item' | 'command'): readonly Part[] => {
      const inside = [
        ...(isMeta ? partsOf(at(from, 'Meta')?.content ?? []) : []),
        ...(habits.sizeAt === place ? sizes : []),
      ];
      return inside.length > 0 ? [part('Meta', inside)] : [];
    };
    const chunk = part('Item', [
      ...partsOf(item.content).filter(({ name }) => name === 'Target' || name === 'Source'),
      ...metaOf(item, 'item'),
      part('Data', data.slice(sent, end)),
      ...(isLast ? [] : [part('MoreData')]),
    ]);
    const silent = allIn(command, 'NoResp');
    return part(command.name, [...silent, ...metaOf(command, 'command'), chunk]);
  }

  #wantedOf(from: Part): readonly Wanted[] {
    return this.#sent.get(`${textAt(from, 'MsgRef')} ${textAt(from, 'CmdRef')}`) ?? [];
  }

  #heed(status: Part): void {
    const code = Number(textAt(status, 'Data'));
    if (code === 213) return;
    for (const wanted of this.#wantedOf(status)) {
      if (wanted.silent) this.complaints.push(`a Status for ${wanted.uri}, of which none was wanted`);
      if (wanted.status !== undefined && wanted.status !== code)
        this.complaints.push(`${wanted.name} ${wanted.uri} has two statuses, ${wanted.status} and ${code}`);
      wanted.status = code;
      // A chunk that was refused is not followed by the others.
      if (code >= 300 && this.#queue[0]?.of[0] === wanted && this.#queue[0].sent > 0) this.#queue.shift();
    }
  }

  #take(command: Part, msgRef: string): void {
    const cmdId = textAt(command, 'CmdID') ?? '';
    const code = textAt(command, 'Data');
    if (command.name === 'Results') this.#found(command, msgRef, cmdId);
    if (command.name === 'Results' || (command.name === 'Alert' && code === '1222')) return;
    if (command.name === 'Alert' && code === '1223') {
      this.end = 'the client aborts';
      return;
    }
    if (allIn(command, 'NoResp').length === 0)
      this.#statuses.push(this.#status(msgRef, cmdId, command.name, 200));
  }

  #found(results: Part, msgRef: string, cmdId: string): void {
    const [wanted] = this.#wantedOf(results);
    const { maxObjSize = Number.POSITIVE_INFINITY } = this.#parts.habits;
    if (!wanted) {
      this.complaints.push('Results of nothing that was asked for');
      return;
    }
    for (const item of allIn(results, 'Item')) {
      const hasMore = allIn(item, 'MoreData').length > 0;
      const content = at(item, 'Data')?.content ?? '';
      const text = Buffer.isBuffer(content)
        ? content.toString()
        : partsOf(content).length > 0
          ? ''
          : String(content);
      const size = textAt(item, 'Meta', 'Size') ?? textAt(results, 'Meta', 'Size');
      if (hasMore && !this.#begun && size === undefined) this.complaints.push('a chunk without a size');
      if (hasMore) this.#begun ??= { size: Number(size), data: '' };
      const data = `${this.#begun?.data ?? ''}${text}`;
      if (hasMore && this.#begun) {
        this.#begun.data = data;
        this.#statuses.push(this.#status(msgRef, cmdId, 'Results', 213));
        continue;
      }
      if (this.#begun && Buffer.byteLength(data) !== this.#begun.size)
        this.complaints.push(`an object of ${Buffer.byteLength(data)} octets, said ${this.#begun.size}`);
      this.#begun = undefined;
      if (Buffer.byteLength(data) > maxObjSize)
        this.complaints.push(`an object of ${Buffer.byteLength(data)} octets, of ${maxObjSize}`);
      wanted.found.set(plain(textAt(item, 'Source', 'LocURI') ?? ''), data);
    }
  }
}

const composed: ReadonlySet<string> = new Set([
  'Get',
  'Replace',
  'Add',
  'Delete',
  'Copy',
  'Exec',
  'Atomic',
  'Sequence',
]);
