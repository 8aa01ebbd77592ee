import { background } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { isOk } from '../../dm/status.ts';
import { ReturnFormat } from '../../mo/campaign.ts';
import { type DeviceOutcome, readResult } from '../../mo/campaign-result.ts';
import type { FanoutOrder } from '../../mo/fanout-order.ts';
import { nodeAt, renamed, renamedTree, type Vocabulary } from '../../mo/vocabulary.ts';
import { encodeTnds, TndsMediaType, type TndsNode } from '../../wire/syncml/tnds.ts';
import type { AttemptOptions } from './campaign-parts.ts';
import type { Manage } from './waiting-work.ts';

export interface DelegationParts {
  readonly manage: Manage;
  readonly vocabulary: Vocabulary;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Maximum number of devices in one fan-out of a child, so that it fits into one object. */
const batchSize = 128;
/** Milliseconds for the session of a device behind a child that is asked whether it is there, and for the whole order. */
const presencePatience = { timeout: 20_000, deadline: 30_000 } as const;
/** Milliseconds that a child may take beyond the order's own deadline. */
const grace = 60_000;

/**
 * Fan-outs to devices behind a child gateway (GwMO 1.1). The parent is the DM server of the child. It writes a fan-out
 * into the child's tree, starts it, and waits for the Command Fanout Alert. The child does the same for devices behind
 * a child of its own.
 */
export class Delegation {
  readonly #parts: DelegationParts;
  /** Callbacks that take the result of a child's fan-out, by child and correlator. */
  readonly #waiting = new Map<string, (result: string) => void>();

  constructor(parts: DelegationParts) {
    this.#parts = parts;
  }

  /**
   * Performs an order on devices behind a child, in batches. Returns the outcomes of the devices that the child
   * reported.
   * @throws {PosternError} `timeout` when no session began or no result came, `unavailable` when the child refused the
   * order, `malformed` or `tooLarge` for a result that cannot be read, or the error of the session with the child
   */
  async run(
    child: string,
    devices: readonly string[],
    order: FanoutOrder,
    { begun, signal }: Pick<AttemptOptions, 'begun' | 'signal'>,
  ): Promise<readonly DeviceOutcome[]> {
    const outcomes: DeviceOutcome[] = [];
    for (let at = 0; at < devices.length; at += batchSize)
      outcomes.push(...(await this.#batch(child, devices.slice(at, at + batchSize), order, begun, signal)));
    return outcomes;
  }

  /** Whether a child reaches a device behind it: whether the device answers it in a session. */
  async reaches(child: string, deviceId: string, gatewayId: string): Promise<boolean> {
    const order: FanoutOrder = {
      name: 'presence',
      server: gatewayId,
      devices: [deviceId],
      command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/DevId</LocURI></Target></Item></Get>',
      operations: [{ name: 'Get', uri: './DevInfo/DevId' }],
      returnFormat: ReturnFormat.Full,
      ...presencePatience,
      patience: presencePatience.timeout,
    };
    const signal = new AbortController().signal;
    const [outcome] = await this.run(child, order.devices, order, { begun: () => {}, signal });
    return outcome !== undefined && isOk(outcome.status);
  }

  /** Takes the result of a child's fan-out. Returns false when no batch of this child with this correlator waits. */
  reported(child: string, correlator: string | undefined, result: string): boolean {
    const settle = this.#waiting.get(`${child} ${correlator}`);
    settle?.(result);
    return settle !== undefined;
  }

  async #batch(
    child: string,
    devices: readonly string[],
    order: FanoutOrder,
    begun: () => void,
    signal: AbortSignal,
  ): Promise<DeviceOutcome[]> {
    const { manage, vocabulary, clock, entropy, events } = this.#parts;
    const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
    const list = nodeAt(vocabulary, 'GwFanout', 'Fanout');
    const uri = `${list}/${correlator}`;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = clock.after(order.deadline + grace, () =>
      reject(new PosternError('timeout', `${child} did not report its fan-out`)),
    );
    const stopped = () => reject(signal.reason);
    signal.addEventListener('abort', stopped, { once: true });
    promise.catch(() => {});
    this.#waiting.set(`${child} ${correlator}`, resolve);
    try {
      const started = await manage(
        child,
        [
          {
            name: 'Add',
            uri,
            format: 'xml',
            type: TndsMediaType.Xml,
            data: encodeTnds({
              path: list,
              root: renamedTree(vocabulary, orderNodes(correlator, devices, order)),
            }),
          },
          { name: 'Exec', uri: `${uri}/${renamed(vocabulary.names, 'Start')}`, correlator },
        ],
        { timeout: order.timeout, begun, signal },
      );
      const refused = started.find(({ status }) => !isOk(status));
      if (refused)
        throw new PosternError(
          'unavailable',
          `${child} answered ${refused.operation.name} with ${refused.status}`,
        );
      return readResult(await promise);
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', stopped);
      this.#waiting.delete(`${child} ${correlator}`);
      // The result is here, so the child need not keep it.
      if (!signal.aborted) void background(events, 'campaign', () => this.#tidy(child, uri, signal));
    }
  }

  /** Deletes a fan-out from the child's tree. A child that cannot be reached keeps it. */
  async #tidy(child: string, uri: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#parts.manage(child, [{ name: 'Delete', uri }], { timeout: grace, signal });
    } catch (thrown) {
      if (asPosternError(thrown).code === 'internal') throw thrown;
    }
  }
}

/** The nodes of a fan-out in the child's tree. */
function orderNodes(name: string, devices: readonly string[], order: FanoutOrder): TndsNode {
  const int = (leaf: string, value: number): TndsNode => ({
    name: leaf,
    format: 'int',
    value: String(value),
  });
  const list = devices.map(
    (device, at): TndsNode => ({
      name: `d${at}`,
      format: 'node',
      children: [{ name: 'DeviceID', format: 'chr', value: device }],
    }),
  );
  return {
    name,
    format: 'node',
    children: [
      { name: 'Command', format: 'xml', value: order.command },
      {
        name: 'Targets',
        format: 'node',
        children: [{ name: 'DeviceList', format: 'node', children: list }],
      },
      int('ReturnFormat', ReturnFormat.Full),
      // The child has the same defaults. A sleeping client gets longer only when the order names no Timeout.
      ...(order.patience === order.timeout ? [int('Timeout', Math.ceil(order.timeout / 1000))] : []),
      int('Deadline', Math.ceil(order.deadline / 1000)),
    ],
  };
}
