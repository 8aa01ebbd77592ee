import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet';

/** What a broker does to its clients. */
export const gateModes = [
  'good',
  'kick-after-connack',
  'kick-after-suback',
  'silent',
  'replay',
  'malformed',
  'garbage',
] as const;
export type GateMode = (typeof gateModes)[number];

/** Publications that are kept to be delivered again, and how often a second. */
const kept = 100;
const lieEvery = 20;
/** Version of MQTT that gateway and head-end speak to mosquitto. */
const protocolVersion = 5;

/** One client of the broker, and its connection to the real one. */
interface Passage {
  readonly client: Socket;
  readonly server: Socket;
  /** What the broker has delivered to this client. */
  readonly delivered: IPublishPacket[];
}

/**
 * Stands before a real broker. Whoever connects to its port for control can say how it treats the clients of the broker, a line
 * for each mode; when that connection ends, the broker is a good one again, and connections that were spoiled are closed.
 */
export class Gate implements AsyncDisposable {
  readonly #broker: number;
  readonly #passages = new Set<Passage>();
  readonly #front = createServer({ noDelay: true }, (client) => this.#pass(client));
  readonly #control = createServer((socket) => this.#obey(socket));
  readonly #lies = setInterval(() => this.#lie(), lieEvery);
  #mode: GateMode = 'good';

  private constructor(broker: string) {
    this.#broker = Number(new URL(broker).port);
  }

  /** @param broker URL of the real broker, on loopback */
  static async before(broker: string): Promise<Gate> {
    const gate = new Gate(broker);
    for (const server of [gate.#front, gate.#control]) {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    }
    return gate;
  }

  /** What the clients of the broker connect to. */
  get url(): string {
    return `mqtt://127.0.0.1:${(this.#front.address() as AddressInfo).port}`;
  }

  /** Port for control. */
  get port(): number {
    return (this.#control.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#lies);
    const closed = [this.#front, this.#control].map((server) => once(server, 'close'));
    this.#front.close();
    this.#control.close();
    this.#closeAll();
    await Promise.all(closed);
  }

  #obey(socket: Socket): void {
    socket.on('error', () => {});
    createInterface(socket).on('line', (line) => {
      this.#mode = gateModes.find((mode) => mode === line) ?? 'good';
      // Those that are connected meet it, too.
      if (this.#mode.startsWith('kick')) this.#closeAll();
    });
    socket.on('close', () => {
      this.#mode = 'good';
      this.#closeAll();
    });
  }

  #closeAll(): void {
    for (const { client, server } of this.#passages) {
      client.destroy();
      server.destroy();
    }
  }

  #pass(client: Socket): void {
    const server = connect({ port: this.#broker, host: '127.0.0.1', noDelay: true });
    const passage: Passage = { client, server, delivered: [] };
    this.#passages.add(passage);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.on('error', () => {});
      socket.on('close', () => {
        other.destroy();
        this.#passages.delete(passage);
      });
    }
    client.on('data', (octets: Buffer) => {
      if (this.#mode !== 'silent') server.write(octets);
    });
    const reading = parser({ protocolVersion });
    reading.on('packet', (packet: Packet) => this.#deliver(passage, packet));
    server.on('data', (octets: Buffer) => {
      if (this.#mode !== 'silent') reading.parse(octets);
    });
  }

  #deliver({ client, delivered }: Passage, packet: Packet): void {
    if (!client.writable) return;
    if (packet.cmd === 'publish') {
      delivered.push(packet);
      if (delivered.length > kept) delivered.shift();
    }
    client.write(generate(packet, { protocolVersion }));
    if (this.#mode === `kick-after-${packet.cmd}`) client.end();
  }

  /** Delivers what nobody has sent now. */
  #lie(): void {
    if (this.#mode !== 'replay' && this.#mode !== 'malformed' && this.#mode !== 'garbage') return;
    for (const { client, delivered } of this.#passages) {
      const original = delivered[Math.floor(Math.random() * delivered.length)];
      if (!original || !client.writable) continue;
      const payload = Buffer.from(original.payload);
      if (this.#mode === 'malformed') payload[Math.floor(Math.random() * payload.length)]! ^= 0x55;
      const packet = generate(
        { ...original, payload, qos: 0, dup: false, retain: false },
        { protocolVersion },
      );
      client.write(this.#mode === 'garbage' ? packet.subarray(1) : packet);
    }
  }
}
