import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { isOk } from '../../dm/status.ts';
import { ReturnFormat } from '../../mo/campaign.ts';
import { type DeviceOutcome, readResult } from '../../mo/campaign-result.ts';
import type { FanoutOrder } from '../../mo/fanout-order.ts';
import { nodeAt, renamed, renamedTree, type Vocabulary } from '../../mo/vocabulary.ts';
import { encodeTnds, TndsMediaType, type TndsNode } from '../../wire/syncml/tnds.ts';
import type { AttemptOptions } from './campaign.ts';
import type { Manage } from './waiting-work.ts';

export interface DelegationParts {
  readonly manage: Manage;
  readonly vocabulary: Vocabulary;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

/** Devices of one order to a child: what goes in one object. */
const batchSize = 128;
/** Milliseconds that a child may take longer than the order's own deadline. */
const grace = 60_000;

/**
 * Fan-outs for devices behind a child gateway (GwMO 1.1): the parent, as DM server of the child, writes a fan-out into the
 * child's tree, and waits for its Command Fanout Alert. The child does the same with what is behind a child of its own.
 */
export class Delegation {
  readonly #parts: DelegationParts;
  readonly #waiting = new Map<string, (result: string) => void>();

  constructor(parts: DelegationParts) {
    this.#parts = parts;
  }

  /** @throws {PosternError} `timeout`, `unavailable`, or why the session with the child failed */
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

  /** A child's fan-out has ended. False when nobody here waits for it. */
  reported(correlator: string | undefined, result: string): boolean {
    const settle = this.#waiting.get(correlator ?? '');
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
    const { manage, vocabulary, clock, entropy } = this.#parts;
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
    this.#waiting.set(correlator, resolve);
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
      this.#waiting.delete(correlator);
      // What it came to is known; the child need not keep it. Nobody waits for this.
      if (!signal.aborted)
        void manage(child, [{ name: 'Delete', uri }], { timeout: grace, signal }).catch(() => {});
    }
  }
}

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
      int('Timeout', Math.ceil(order.timeout / 1000)),
      int('Deadline', Math.ceil(order.deadline / 1000)),
    ],
  };
}
