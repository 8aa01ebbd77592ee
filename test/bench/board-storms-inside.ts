// The part of the storms that runs in a network namespace: the emulated board and its devices. `board-storms.ts` starts it, with
// the order as JSON, and reads the outcome from standard output.
import { execFileSync } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import type { Association } from '../../src/wire/secure/dtls/association.ts';
import { Board } from '../firmware/board.ts';
import { readGateway } from './board-console.ts';
import type { BoardStorm, BoardStorms, StormOrder } from './board-storms.ts';
import { BenchClient, key } from './dtls-client.ts';
import { cpuSeconds } from './measure.ts';

/** Milliseconds after which a gateway has stored new associations: it does so after 5 s. */
const storing = 6000;
/** Milliseconds between two looks at the gateway, and seconds of CPU time in between at which it has come to rest. */
const look = 3000;
const restful = 0.3;

/** Counters of one storm. */
interface Tally {
  handshakes: number;
  failures: number;
  repetitions: number;
}

/** A device with an address of its own. It keeps its association while it has power. */
class StormDevice implements AsyncDisposable {
  readonly #identity: string;
  readonly #client: BenchClient;
  #association: Association | undefined;
  #requests = 0;

  private constructor(identity: string, client: BenchClient) {
    this.#identity = identity;
    this.#client = client;
  }

  static async open(identity: string, port: number, address: string): Promise<StormDevice> {
    return new StormDevice(identity, await BenchClient.open(port, '127.0.0.1', address, { wantsCid: true }));
  }

  losePower(): void {
    this.#association = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  /** Has a request answered, after a handshake where there is no association, or where the board is silent in it. */
  async getAnswer(tally: Tally): Promise<void> {
    for (;;) {
      this.#association ??= await this.#shakeHands(tally);
      const sent = await this.#client.ask(this.#association, this.#requests++);
      if (sent !== undefined) {
        tally.repetitions += sent - 1;
        return;
      }
      this.#association = undefined;
    }
  }

  async #shakeHands(tally: Tally): Promise<Association> {
    for (;;)
      try {
        const association = await this.#client.connect(this.#identity);
        tally.handshakes++;
        return association;
      } catch (thrown) {
        tally.failures++;
        reasons.set(String(thrown), (reasons.get(String(thrown)) ?? 0) + 1);
      }
  }
}

/** Why handshakes of the present storm failed, and how many. */
const reasons = new Map<string, number>();

async function rest(board: Board): Promise<void> {
  await pause(storing);
  let { cpuSeconds: before } = await readGateway(board.machine);
  for (;;) {
    await pause(look);
    const { cpuSeconds: now } = await readGateway(board.machine);
    if (now - before < restful) return;
    before = now;
  }
}

async function storm(board: Board, devices: readonly StormDevice[]): Promise<BoardStorm> {
  const tally: Tally = { handshakes: 0, failures: 0, repetitions: 0 };
  const before = await readGateway(board.machine);
  const emulation = cpuSeconds(board.machine);
  const began = performance.now();
  let answers = 0;
  const progress = setInterval(() => console.error(`  ${answers} of ${devices.length}`), 10_000);
  await Promise.all(
    devices.map(async (device) => {
      await device.getAnswer(tally);
      answers++;
    }),
  );
  clearInterval(progress);
  const seconds = (performance.now() - began) / 1000;
  const emulationSeconds = cpuSeconds(board.machine) - emulation;
  const after = await readGateway(board.machine);
  return {
    seconds,
    cpuSeconds: after.cpuSeconds - before.cpuSeconds,
    emulationSeconds,
    before: before.megabytes,
    megabytes: after.megabytes,
    peak: after.peakMegabytes,
    free: after.freeMegabytes,
    ...tally,
  };
}

async function storms({ disk, trust, devices: count }: StormOrder): Promise<BoardStorms> {
  for (const args of ['link set lo up', 'route add local 10.70.0.0/16 dev lo'])
    execFileSync('ip', args.split(' '));
  const identities = Array.from({ length: count }, (_, at) => `urn:dev:bench:${at}`);
  await using stack = new AsyncDisposableStack();
  const board = stack.use(
    await Board.flash({
      disk,
      hardware: virt({ trust }),
      dtlsDevices: identities.map((identity) => ({ identity, key: String(key) })),
    }),
  );
  const devices = await Promise.all(
    identities.map((identity, at) =>
      StormDevice.open(identity, board.coapsPort, `10.70.${at >> 8}.${at & 255}`),
    ),
  );
  for (const device of devices) stack.use(device);
  const next = async (name: string): Promise<BoardStorm> => {
    const ready = await board.start();
    console.error(`${name}: the board serves after ${(ready / 1000).toFixed(1)} s`);
    const taken = await storm(board, devices);
    console.error(`${name}: ${JSON.stringify(taken)}`, Object.fromEntries(reasons));
    reasons.clear();
    await rest(board);
    await board.machine.cutPower();
    return taken;
  };
  const first = await next('first');
  const kept = await next('kept');
  for (const device of devices) device.losePower();
  return { first, kept, anew: await next('anew') };
}

const order = JSON.parse(process.argv[2] ?? '') as StormOrder;
process.stdout.write(JSON.stringify(await storms(order)));
