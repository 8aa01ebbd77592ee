import { failed, guarded } from '../base/background.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';

/** Milliseconds after which a party that does not say whether it can serve counts as one that cannot. */
const complaintWithin = 10_000;

/** What a party says of itself. */
export interface Survivor {
  events: Events;
  /** Why the party cannot serve any more; undefined when it can. */
  complaint: () => Promise<string | undefined> | string | undefined;
}

/**
 * Lets the process of a party live on after an error that no part of the program caught. The error is counted
 * (`background.failed`, work `uncaught`). Then the party is asked whether it can still serve; when it cannot, the process
 * ends with code 1, so that a supervisor starts it again. The result is to be given the party when there is one.
 */
export function surviveErrors(events: Events): Survivor & Disposable {
  let isAsking = false;
  const ask = async () => {
    const { promise: late, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(resolve, complaintWithin, 'it does not say whether it can serve');
    try {
      return await Promise.race([late, survivor.complaint()]);
    } catch (thrown) {
      return asPosternError(thrown).message;
    } finally {
      clearTimeout(timer);
    }
  };
  const survive = async (thrown: unknown) => {
    failed(survivor.events, 'uncaught', thrown);
    if (isAsking) return;
    isAsking = true;
    const reason = await ask();
    isAsking = false;
    if (reason === undefined) return;
    survivor.events.emit('process.cannot-serve', { reason });
    process.exitCode = 1;
    // The log writes in the background: the last line has to get out first.
    setTimeout(() => process.exit(), 100);
  };
  const listener = guarded(events, 'uncaught', survive);
  process.on('uncaughtException', listener);
  const survivor: Survivor = { events, complaint: () => undefined };
  return Object.assign(survivor, {
    [Symbol.dispose]: () => void process.off('uncaughtException', listener),
  });
}

/**
 * Runs a party. A failure before it calls `running` is the event `process.start-failed`, the last one of its log. On a terminal
 * `runCli` alone tells the failure, in words.
 * @throws what `run` throws
 */
export async function runParty(events: Events, run: (running: () => void) => Promise<void>): Promise<void> {
  let isRunning = false;
  try {
    await run(() => {
      isRunning = true;
    });
  } catch (thrown) {
    const isTerminal = process.stdout.isTTY && process.stderr.isTTY;
    if (!isRunning && !isTerminal)
      events.emit('process.start-failed', { reason: asPosternError(thrown).message });
    throw thrown;
  }
}
