export type Severity = 'debug' | 'info' | 'warn' | 'error';

/** Fields of any event: IDs, codes and counts. Never a secret, a nonce or a payload. */
export type EventFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** Fields that mean the same in each event that has them, with one type. Any other field has a type of its own in its event. */
interface CommonFields {
  address: string;
  alert: string;
  alerts: number;
  before: string;
  bootstrap: string;
  bytes: number;
  child: string;
  command: string;
  correlator: string;
  device: string;
  devices: number;
  deviceType: string;
  done: number;
  down: number;
  failed: number;
  firmware: string;
  free: number;
  gateway: string;
  group: string;
  identity: string;
  image: string;
  instead: string;
  interface: string;
  manufacturer: string;
  message: string;
  model: string;
  name: string;
  notified: boolean;
  online: boolean;
  operation: string;
  option: number;
  origin: string;
  parent: string;
  party: string;
  path: string;
  peer: string;
  percent: number;
  port: number;
  protocol: string;
  reason: string;
  received: number;
  refused: number;
  resources: string;
  result: number;
  retryInSeconds: number;
  rss: number;
  security: string;
  sequence: number;
  server: string;
  session: string;
  slot: string;
  stack: string;
  status: number;
  total: number;
  traffic: string;
  tried: boolean;
  tunnelled: boolean;
  up: number;
  values: number;
  uri: string;
  url: string;
  version: string;
  via: string;
  wanted: string;
  working: number;
}

type Common = keyof CommonFields;
type Flat<T> = { readonly [Key in keyof T]: T[Key] };
type Fields<Needed extends Common, Optional extends Common, Own> = Flat<
  { [Key in Needed]: CommonFields[Key] } & { [Key in Optional]?: CommonFields[Key] | undefined } & Own
>;

declare const fields: unique symbol;
/** Carries the type of the fields, for the compiler alone. */
interface Carried<F> {
  readonly [fields]: F;
}
export type FieldsIn<Event extends Carried<unknown>> = Event[typeof fields];

/** What an event is at run time: its severity, and whether a peer can cause it as often as the peer likes. */
export interface EventFacts {
  readonly severity: Severity;
  readonly byPeer: boolean;
}

/** Declares events by the common fields that they need, those that they may have, and fields with types of their own. */
const of =
  (severity: Severity, byPeer: boolean) =>
  <
    Needed extends Common = never,
    Optional extends Common = never,
    Own extends EventFields = Record<never, never>,
  >() =>
    ({ severity, byPeer }) as EventFacts & Carried<Fields<Needed, Optional, Own>>;
/** `byPeer` declares an event that a peer can cause by what it sends. The log tells it once per cause and peer, then counts. */
const both = (severity: Severity) => Object.assign(of(severity, false), { byPeer: of(severity, true) });
export const debug = both('debug');
export const info = both('info');
export const warn = both('warn');
export const error = both('error');
