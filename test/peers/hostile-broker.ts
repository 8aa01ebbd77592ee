import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import {
  generate,
  type IConnackPacket,
  type IConnectPacket,
  type IDisconnectPacket,
  type IPublishPacket,
  type ISubscribePacket,
  type Packet,
  parser,
} from 'mqtt-packet';

type Properties = NonNullable<IConnackPacket['properties']>;

/** One client of a hostile broker. */
export interface HostileClient {
  readonly version: 3 | 4 | 5;
  readonly clientId: string;
  send(packet: Packet): void;
  /** Ends the connection, over MQTT 5 after a DISCONNECT with this reason code. */
  kick(reasonCode?: number, properties?: IDisconnectPacket['properties']): void;
  /** Stops reading what the client sends. */
  pause(): void;
  resume(): void;
}

/** What a broker does other than a good one. Without a function it does what a good broker does. */
export interface Behaviour {
  /** Answers a CONNECT: a return or reason code, and properties; `close` closes the connection without a CONNACK. */
  readonly connack?: (connect: IConnectPacket) => { code: number; properties?: Properties } | 'close';
  /** Codes of the SUBACK. */
  readonly suback?: (topics: readonly string[], client: HostileClient) => readonly number[];
  /** Called after the SUBACK was sent. */
  readonly subscribed?: (client: HostileClient) => void;
  /** Takes a PUBLISH. Returns true to have the broker acknowledge and deliver it as usual. */
  readonly published?: (packet: IPublishPacket, client: HostileClient) => unknown;
}

/**
 * A small MQTT broker that misbehaves as a test wishes. `behaviour` may be changed while it runs. A second client of one name
 * ends the connection of the first, with reason code 0x8E over MQTT 5.
 */
export interface HostileBroker extends AsyncDisposable {
  readonly url: string;
  behaviour: Behaviour;
  /** CONNECT packets so far. */
  readonly connects: readonly IConnectPacket[];
  /** SUBSCRIBE packets so far. */
  readonly subscribes: readonly ISubscribePacket[];
  /** PUBLISH packets so far. */
  readonly publishes: readonly IPublishPacket[];
  /** Delivers a message to those who have subscribed to it. */
  deliver(message: Pick<IPublishPacket, 'topic' | 'payload' | 'qos'>): void;
}

export async function startHostileBroker(behaviour: Behaviour = {}): Promise<HostileBroker> {
  const connects: IConnectPacket[] = [];
  const subscribes: ISubscribePacket[] = [];
  const publishes: IPublishPacket[] = [];
  /** Sockets, and the filters of their clients. */
  const sockets = new Map<Socket, { client?: HostileClient; filters: Set<string> }>();
  const broker = { behaviour, connects, subscribes, publishes };
  const server = createServer({ noDelay: true }, (socket) => {
    const state: { client?: HostileClient; filters: Set<string> } = { filters: new Set() };
    sockets.set(socket, state);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    const reading = parser();
    socket.on('data', (octets: Buffer) => reading.parse(octets));
    reading.on('error', () => socket.destroy());
    reading.on('packet', (packet: Packet) => {
      if (packet.cmd === 'connect') state.client = connected(socket, packet);
      else if (state.client) handle(state.client, state.filters, packet);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  function connected(socket: Socket, packet: IConnectPacket): HostileClient {
    connects.push(packet);
    const version = packet.protocolVersion ?? 4;
    const send = (one: Packet) => {
      if (socket.writable) socket.write(generate(one, { protocolVersion: version }));
    };
    const client: HostileClient = {
      version,
      clientId: packet.clientId,
      send,
      kick: (reasonCode, properties) => {
        if (version === 5 && reasonCode !== undefined)
          send({ cmd: 'disconnect', reasonCode, ...(properties && { properties }) });
        socket.end();
      },
      pause: () => void socket.pause(),
      resume: () => void socket.resume(),
    };
    for (const { client: other } of sockets.values())
      if (other?.clientId === packet.clientId) other.kick(0x8e);
    const answer = broker.behaviour.connack?.(packet) ?? { code: 0 };
    if (answer === 'close') socket.end();
    else {
      const { code, properties } = answer;
      send({
        cmd: 'connack',
        sessionPresent: false,
        returnCode: code,
        reasonCode: code,
        ...(properties && { properties }),
      });
      if (code !== 0) socket.end();
    }
    return client;
  }

  function handle(client: HostileClient, filters: Set<string>, packet: Packet): void {
    const { behaviour } = broker;
    if (packet.cmd === 'pingreq') client.send({ cmd: 'pingresp' });
    if (packet.cmd === 'subscribe') {
      subscribes.push(packet);
      const topics = packet.subscriptions.map(({ topic }) => topic);
      const granted = behaviour.suback?.(topics, client) ?? topics.map(() => 1);
      for (const [at, topic] of topics.entries()) if (granted[at]! < 0x80) filters.add(topic);
      client.send({ cmd: 'suback', messageId: packet.messageId!, granted: [...granted] });
      behaviour.subscribed?.(client);
    }
    if (packet.cmd === 'publish') {
      publishes.push(packet);
      if (behaviour.published && behaviour.published(packet, client) !== true) return;
      if (packet.qos === 1) client.send({ cmd: 'puback', messageId: packet.messageId!, reasonCode: 0 });
      deliver(packet);
    }
  }

  function deliver({ topic, payload, qos }: Pick<IPublishPacket, 'topic' | 'payload' | 'qos'>): void {
    for (const { client, filters } of sockets.values())
      if (client && [...filters].some((filter) => fits(filter, topic)))
        client.send({ cmd: 'publish', topic, payload, qos, retain: false, dup: false, messageId: 1 });
  }

  return Object.assign(broker, {
    deliver,
    url: `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets.keys()) socket.destroy();
      await closed;
    },
  });
}

/** Whether a topic fits a filter with `+`. */
const fits = (filter: string, topic: string): boolean => {
  const [parts, levels] = [filter.split('/'), topic.split('/')];
  return parts.length === levels.length && parts.every((part, at) => part === '+' || part === levels[at]);
};
