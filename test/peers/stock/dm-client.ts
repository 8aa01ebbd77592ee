import { challenge, credential, nonceIn, proofOf } from './account.ts';
import type { ClientHabits, WrongAlert } from './client-habits.ts';
import { ClientTree, commandsIn, type Done, type Leaf, plain, textOf, uriIn } from './client-tree.ts';
import type { Dice } from './dice.ts';
import { allIn, at, maybe, mediaTypeOf, type Part, part, partsOf, read, textAt, write } from './markup.ts';

export interface DmClientParts {
  readonly dice: Dice;
  readonly habits: ClientHabits;
  readonly deviceId: string;
  readonly serverId: string;
  readonly secret: string;
  readonly serverSecret: string;
  readonly nonces: { readonly client: Buffer; readonly server: Buffer };
  readonly sessionId: string;
  /** Data of generic alerts that it reports in package 1. */
  readonly reports: readonly string[];
}

/** Sends a message, and returns the answer. */
export type Send = (body: Buffer, mediaType: string) => Promise<Uint8Array>;

/** A command of the client that waits to be sent, without its CmdID. `sent`: characters of its value that are on their way. */
interface Waiting {
  readonly command: Part;
  readonly sent: number;
}

/** Messages after which a session is one without an end. */
const most = 900;
/** Chunks of the size that the habits say. The rest of the session has larger ones, so that it ends. */
const smallChunks = 20;

/**
 * An OMA DM client that has Postern's codecs for reading, and nothing else of it. It does what its habits say, and
 * notes what the server does that no client has to take.
 */
export class DmClient {
  readonly #parts: DmClientParts;
  readonly tree: ClientTree;
  /** What it has done, in order. */
  readonly log: Done[] = [];
  /** What was wrong with the messages of the server. */
  readonly complaints: string[] = [];
  /** Statuses of its reports. */
  readonly reported: number[] = [];
  #msgId = 0;
  #queue: Waiting[] = [];
  #late: Waiting[] = [];
  /** What its last message had, to be sent again when the server asks for another credential. */
  #batch: readonly Part[] = [];
  #isBatchFinal = false;
  #ownTurn = true;
  #nonce: Buffer;
  #serverNonce: Buffer;
  #isAccepted = false;
  #wasAsked = false;
  #serverProved = false;
  #refusals = 0;
  #doubts = 0;
  #chunks = 0;
  #begun: { key: string; size: number; first: Part; data: string } | undefined;
  #limitsKnown = false;

  constructor(parts: DmClientParts) {
    this.#parts = parts;
    this.tree = new ClientTree(parts.habits, parts.dice);
    this.#nonce = parts.habits.forgotNonce ? Buffer.from('another') : parts.nonces.client;
    this.#serverNonce = parts.nonces.server;
  }

  /** Runs a session. Returns how it ended: `done`, or why not. */
  async run(send: Send): Promise<string> {
    const { habits, dice } = this.#parts;
    const { writing } = habits;
    this.#open();
    let lead: readonly Part[] = [];
    let again = false;
    for (let sent = 0; sent < most; sent++) {
      const isAbort = sent === habits.abortsAfter;
      const message = isAbort ? this.#abort(lead) : this.#message(lead, again);
      const body = write(message, writing, dice);
      let answer = await send(body, mediaTypeOf(writing));
      if (dice.chance(habits.repeats)) {
        const repeated = await send(body, mediaTypeOf(writing));
        if (Buffer.compare(repeated, answer) !== 0) this.#complain('a repeated message has another answer');
        answer = repeated;
      }
      const taken = this.#take(answer);
      if (isAbort) return 'aborted';
      if (taken.end !== undefined) return taken.end;
      lead = taken.lead;
      again = taken.again;
    }
    this.#complain('the session does not end');
    return 'endless';
  }

  #complain(what: string): void {
    this.complaints.push(`message ${this.#msgId}: ${what}`);
  }

  #open(): void {
    const { dice, habits, reports } = this.#parts;
    this.#push(part('Alert', [part('Data', dice.pick(['1200', '1201']))]));
    const items = [...this.tree.leaves].flatMap(([uri, { value }]) =>
      uri.startsWith('DevInfo/')
        ? [part('Item', [part('Source', [part('LocURI', this.#uri(uri))]), part('Data', textOf(value))])]
        : [],
    );
    this.#push(part('Replace', [...(habits.noResponse ? [part('NoResp')] : []), ...items]));
    for (const data of reports) this.#push(this.#alert(data));
    if (habits.wrongAlert) this.#push(this.#alert('wrong', habits.wrongAlert));
  }

  /** A generic alert, and what is wrong with it. */
  #alert(data: string, wrong?: WrongAlert): Part {
    const meta = [
      ...(wrong === 'no Format' ? [] : [part('Format', 'chr')]),
      ...(wrong === 'no Type'
        ? []
        : [part('Type', `org.example.${wrong === 'unknown Type' ? 'other' : 'report'}`)]),
    ];
    const item = part('Item', [
      part('Source', [part('LocURI', this.#uri('T'))]),
      part('Meta', meta),
      part('Data', data),
    ]);
    const code = wrong === 'unknown code' ? '1299' : '1226';
    return part('Alert', [part('Data', code), ...(wrong === 'no Item' ? [] : [item])]);
  }

  #uri(uri: string): string {
    if (uri === '') return '.';
    return this.#parts.habits.dots ? `./${uri}` : uri;
  }

  #push(command: Part): void {
    this.#queue.push({ command, sent: 0 });
  }

  #header(): Part {
    const { habits, deviceId, serverId, sessionId, secret } = this.#parts;
    const { maxMsgSize, maxObjSize, scheme, shows } = habits;
    const isShown =
      shows === 'always' || (!this.#isAccepted && (shows === 'until-accepted' || this.#wasAsked));
    const sizes = [
      ...maybe('MaxMsgSize', maxMsgSize === undefined ? undefined : String(maxMsgSize)),
      ...maybe('MaxObjSize', maxObjSize === undefined ? undefined : String(maxObjSize)),
    ];
    return part('SyncHdr', [
      part('VerDTD', habits.version.dtd),
      part('VerProto', habits.version.protocol),
      part('SessionID', sessionId),
      part('MsgID', String(++this.#msgId)),
      part('Target', [part('LocURI', serverId)]),
      part('Source', [part('LocURI', deviceId), part('LocName', deviceId)]),
      ...(isShown ? [credential(scheme, proofOf(scheme, deviceId, secret, this.#nonce))] : []),
      ...(sizes.length > 0 ? [part('Meta', sizes)] : []),
    ]);
  }

  #message(lead: readonly Part[], again: boolean): Part {
    const { habits } = this.#parts;
    const batch = again ? this.#batch : this.#batchOf();
    const isDrained = this.#queue.length === 0;
    const asks = !again && !this.#ownTurn && isDrained ? [part('Alert', [part('Data', '1222')])] : [];
    const isFinal = again ? this.#isBatchFinal : isDrained && (this.#ownTurn || habits.alwaysFinal);
    this.#batch = batch;
    this.#isBatchFinal = isFinal;
    if (isFinal) this.#ownTurn = false;
    const commands = [...lead, ...batch, ...asks].map(numbered);
    return part('SyncML', [
      this.#header(),
      part('SyncBody', [...commands, ...(isFinal ? [part('Final')] : [])]),
    ]);
  }

  #abort(lead: readonly Part[]): Part {
    const commands = [...lead, part('Alert', [part('Data', '1223')])].map(numbered);
    return part('SyncML', [this.#header(), part('SyncBody', [...commands, part('Final')])]);
  }

  /** The next commands of its package. A chunk is the last one of its message. */
  #batchOf(): Part[] {
    const batch: Part[] = [];
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      const chunk = this.#chunkOf(next);
      batch.push(chunk ?? next.command);
      if (chunk || batch.length >= this.#parts.habits.perMessage) break;
    }
    return batch;
  }

  #chunkOf({ command, sent }: Waiting): Part | undefined {
    const { habits } = this.#parts;
    const items = allIn(command, 'Item');
    const [item] = items;
    const content = item && at(item, 'Data')?.content;
    if (!item || command.name === 'Status' || items.length > 1 || content === undefined) return undefined;
    const data = textOf(content as string | Buffer);
    const isCoded = Buffer.isBuffer(content);
    const size = this.#chunks < smallChunks ? habits.chunk : 20_000;
    if (sent === 0 && data.length <= size) return undefined;
    this.#chunks++;
    let end = Math.min(data.length, sent + size);
    // Never between the halves of a surrogate pair.
    if (!isCoded && /[\ud800-\udbff]/.test(data.charAt(end - 1))) end = Math.min(data.length, end + 1);
    const isLast = end === data.length;
    if (!isLast) this.#queue.unshift({ command, sent: end });
    const whole = isCoded && habits.sizeOfOctets === 'octets' ? content.length : Buffer.byteLength(data);
    const sizes = sent === 0 ? [part('Size', String(whole))] : [];
    const own = partsOf(at(item, 'Meta')?.content ?? []);
    const outer = partsOf(at(command, 'Meta')?.content ?? []);
    const isMeta = sent === 0 || habits.metaInEachChunk;
    const atCommand = habits.sizeAt === 'command' && command.name === 'Results';
    const inItem = [...(isMeta ? own : []), ...(atCommand ? [] : sizes)];
    const inCommand = [...(isMeta ? outer : []), ...(atCommand ? sizes : [])];
    const chunk = part('Item', [
      ...partsOf(item.content).filter(({ name }) => name === 'Source' || name === 'Target'),
      ...(inItem.length > 0 ? [part('Meta', inItem)] : []),
      part('Data', data.slice(sent, end)),
      ...(isLast ? [] : [part('MoreData')]),
    ]);
    const rest = partsOf(command.content).filter(({ name }) => name !== 'Item' && name !== 'Meta');
    return part(command.name, [...rest, ...(inCommand.length > 0 ? [part('Meta', inCommand)] : []), chunk]);
  }

  /** Takes the answer of the server. `again`: the same batch goes once more. */
  #take(answer: Uint8Array): { end?: string; lead: readonly Part[]; again: boolean } {
    const { habits } = this.#parts;
    const { maxMsgSize = Number.POSITIVE_INFINITY } = habits;
    const message = read(answer, habits.writing);
    const head = at(message, 'SyncHdr');
    const body = at(message, 'SyncBody');
    if (!body) return { end: 'no body', lead: [], again: false };
    const msgRef = textAt(head, 'MsgID') ?? '';
    const statuses = allIn(body, 'Status');
    const verdict = statuses.find((each) => textAt(each, 'CmdRef') === '0');
    const code = textAt(verdict, 'Data') ?? 'none';
    if (answer.length > maxMsgSize && this.#limitsKnown && code !== '413')
      this.#complain(`${answer.length} octets, of ${maxMsgSize}`);
    this.#limitsKnown = true;
    const nonce = nonceIn(verdict, (from) => at(from, 'Chal', 'Meta', 'NextNonce'));
    if (nonce) this.#nonce = nonce;
    if (code === '401' || code === '407') {
      this.#wasAsked = true;
      if (++this.#refusals > 2) return { end: code, lead: [], again: false };
      return { lead: [], again: true };
    }
    if (code !== '200' && code !== '212') return { end: code, lead: [], again: false };
    this.#isAccepted = code === '212';
    const commands = commandsIn(body.content);
    const isFinal = allIn(body, 'Final').length > 0;
    if (commands.some((each) => each.name === 'Alert' && textAt(each, 'Data') === '1223'))
      return { end: 'the server aborts', lead: [], again: false };
    const isOver = isFinal && commands.length === 0 && this.#queue.length + this.#late.length === 0;
    if (!isOver && !this.#trusts(head)) return this.#doubt(msgRef, commands);
    this.#heed(statuses);
    if (isOver) return { end: 'done', lead: [], again: false };
    for (const command of commands) this.#obey(command, msgRef);
    if (isFinal) {
      this.#ownTurn = true;
      this.#queue.push(...this.#late.splice(0));
    }
    // Behind what waits, such a Status would make another request for the next message necessary, and so on for ever.
    const next = commands.filter((each) => habits.answersNext && isNext(each));
    const asked = next.map((each) => statusOf(msgRef, textAt(each, 'CmdID') ?? '', 'Alert', 200, []));
    return { lead: [this.#verdict(msgRef, 212), ...asked], again: false };
  }

  /** Whether the server has proved itself, now or before. */
  #trusts(head: Part | undefined): boolean {
    const { habits, serverId, serverSecret } = this.#parts;
    if (!habits.asksServer) return true;
    const shown = textAt(head, 'Cred', 'Data');
    this.#serverProved ||=
      shown === proofOf('md5', serverId, serverSecret, this.#serverNonce) ||
      shown === proofOf('basic', serverId, serverSecret, this.#serverNonce);
    return this.#serverProved;
  }

  #doubt(msgRef: string, commands: readonly Part[]): { end?: string; lead: readonly Part[]; again: boolean } {
    const { dice } = this.#parts;
    if (++this.#doubts > 2) return { end: 'the server does not prove itself', lead: [], again: false };
    this.#serverNonce = dice.octets(8);
    // Only statuses go to a server that has not proved itself; what waits, waits.
    this.#batch = [];
    const refused = commands.map((each) => statusOf(msgRef, textAt(each, 'CmdID') ?? '', each.name, 401, []));
    return {
      lead: [this.#verdict(msgRef, 401, [challenge(this.#serverNonce)]), ...refused],
      again: true,
    };
  }

  #verdict(msgRef: string, status: number, more: readonly Part[] = []): Part {
    const { serverId, deviceId, habits } = this.#parts;
    const references = habits.references ? [part('TargetRef', deviceId), part('SourceRef', serverId)] : [];
    return statusOf(msgRef, '0', 'SyncHdr', status, [...references, ...more]);
  }

  /** Takes the statuses of its own commands. */
  #heed(statuses: readonly Part[]): void {
    for (const status of statuses)
      if (textAt(status, 'Cmd') === 'Alert' && textAt(status, 'MsgRef') !== undefined) {
        const code = Number(textAt(status, 'Data'));
        if (code !== 213) this.reported.push(code);
      }
  }

  #obey(command: Part, msgRef: string): void {
    const { habits } = this.#parts;
    const cmdRef = textAt(command, 'CmdID') ?? '';
    if (isNext(command) || (command.name === 'Alert' && textAt(command, 'Data') === '1225')) return;
    const whole = this.#assemble(command);
    if (!whole) {
      this.#reply([statusOf(msgRef, cmdRef, command.name, 213, [])]);
      return;
    }
    const { maxObjSize = Number.POSITIVE_INFINITY } = habits;
    const largest = Buffer.byteLength(textAt(allIn(whole, 'Item')[0], 'Data') ?? '');
    if (largest > maxObjSize && command.name !== 'Alert')
      this.#complain(`an object of ${largest} octets, of ${maxObjSize}`);
    const done = this.tree.perform(whole);
    const isLarge =
      done.found && [...done.found.values()].some(({ value }) => textOf(value).length > 1_000_000);
    if (isLarge) throw new Error('the trees of these sessions have no such values');
    this.log.push(done);
    this.#reply(this.#answers(command, done, msgRef));
  }

  /** The command with its large object put together; undefined while more of it will come. */
  #assemble(command: Part): Part | undefined {
    const items = allIn(command, 'Item');
    const [item] = items;
    const hasMore = item !== undefined && allIn(item, 'MoreData').length > 0;
    const key = `${command.name} ${uriIn(command)}`;
    if (this.#begun && this.#begun.key !== key) {
      this.#complain(`${key} within ${this.#begun.key}`);
      this.#begun = undefined;
    }
    if (!item || (!hasMore && !this.#begun)) return command;
    if (this.#parts.habits.largeObjects === 'false') this.#complain('a chunk, and LrgObj is false');
    const size = textAt(item, 'Meta', 'Size') ?? textAt(command, 'Meta', 'Size');
    if (!this.#begun && size === undefined) this.#complain('a first chunk without a size');
    this.#begun ??= { key, size: Number(size), first: item, data: '' };
    this.#begun.data += textAt(item, 'Data') ?? '';
    if (hasMore) return undefined;
    const { first, data, size: said } = this.#begun;
    this.#begun = undefined;
    if (Buffer.byteLength(data) !== said) this.#complain(`${Buffer.byteLength(data)} octets, said ${said}`);
    const whole = part('Item', [
      ...partsOf(first.content).filter(({ name }) => name !== 'Data' && name !== 'MoreData'),
      part('Data', data),
    ]);
    return part(command.name, [...partsOf(command.content).filter(({ name }) => name !== 'Item'), whole]);
  }

  #reply(replies: readonly Part[]): void {
    const { habits } = this.#parts;
    const waiting = replies.map((command) => ({ command, sent: 0 }));
    if (habits.answersLate) this.#late.push(...waiting);
    else this.#queue.push(...waiting);
  }

  #answers(command: Part, done: Done, msgRef: string): Part[] {
    const { habits } = this.#parts;
    const cmdRef = textAt(command, 'CmdID') ?? '';
    const said = (done.said ?? []).map((data) => part('Item', [part('Data', data)]));
    const target = textAt(allIn(command, 'Item')[0], 'Target', 'LocURI');
    const references = habits.references ? maybe('TargetRef', target && this.#uri(plain(target))) : [];
    const status = statusOf(msgRef, cmdRef, command.name, done.status, references, said);
    const inner = commandsIn(command.content);
    const below = (done.parts ?? []).flatMap((each, place) => this.#answers(inner[place]!, each, msgRef));
    const results = done.found ? this.#results(cmdRef, msgRef, [...done.found]) : [];
    return habits.resultsFirst ? [...results, status, ...below] : [status, ...results, ...below];
  }

  #results(cmdRef: string, msgRef: string, found: readonly (readonly [string, Leaf])[]): Part[] {
    const { habits } = this.#parts;
    const refs = [...(habits.msgRefInResults ? [part('MsgRef', msgRef)] : []), part('CmdRef', cmdRef)];
    const itemOf = ([uri, { format, value }]: readonly [string, Leaf], place: string) => {
      const meta = [part('Format', format === 'bin' ? 'b64' : format), part('Type', 'text/plain')];
      const isAt = format !== 'chr' || habits.metaAt !== 'nowhere';
      const item = part('Item', [
        part('Source', [part('LocURI', this.#uri(uri))]),
        ...(isAt && place === 'item' ? [part('Meta', meta)] : []),
        part('Data', format === 'bin' && Buffer.isBuffer(value) && value.length > 0 ? value : textOf(value)),
      ]);
      return { item, outer: isAt && place === 'command' ? [part('Meta', meta)] : [] };
    };
    if (habits.itemsTogether && found.length > 1)
      return [part('Results', [...refs, ...found.map((each) => itemOf(each, 'item').item)])];
    const place = habits.metaAt === 'command' ? 'command' : 'item';
    return found.map((each) => {
      const { item, outer } = itemOf(each, place);
      return part('Results', [...refs, ...outer, item]);
    });
  }
}

const isNext = (command: Part): boolean => command.name === 'Alert' && textAt(command, 'Data') === '1222';

const numbered = (command: Part, place: number): Part =>
  part(command.name, [part('CmdID', String(place + 1)), ...partsOf(command.content)]);

const statusOf = (
  msgRef: string,
  cmdRef: string,
  cmd: string,
  data: number,
  references: readonly Part[],
  items: readonly Part[] = [],
): Part =>
  part('Status', [
    part('MsgRef', msgRef),
    part('CmdRef', cmdRef),
    part('Cmd', cmd),
    ...references,
    part('Data', String(data)),
    ...items,
  ]);
