import { PosternError } from '../base/errors.ts';
import type { DdfElement } from '../wire/syncml/ddf-builder.ts';
import { textOf } from '../wire/syncml/ddf-xml.ts';
import { isEpoch } from '../wire/tunnel/gateway-state.ts';

/**
 * The run of a gateway in which an alert got its number. A server that knows numbers above `start` from another run knows
 * that the gateway has forgotten them: its state was taken back.
 */
export interface AlertRun {
  /** Random text, new at each start of the gateway; the form is that of an epoch. */
  readonly id: string;
  /** The last number that was given before this run. */
  readonly start: number;
}

/** What tells a new alert from a repetition (docs/bindings.md). */
export interface AlertNumber {
  /**
   * Changes when the gateway's state was lost or went back in time. Absent in alerts of version 0.1.0, which are an epoch of
   * their own.
   */
  readonly epoch?: string;
  /** Rises with each alert of an epoch. A number that was received before means the same event. */
  readonly sequence: number;
  /** Absent when the number was given in an earlier run. */
  readonly run?: AlertRun;
}

/** The elements of a number that follow the attribute Seq. */
export const numberFields = ({ epoch, run }: AlertNumber): Readonly<Record<string, string | undefined>> => ({
  Epoch: epoch,
  Run: run?.id,
  Start: run === undefined ? undefined : String(run.start),
});

/**
 * Reads a number.
 * @param sequence the attribute Seq
 * @throws {PosternError} `malformed`
 */
export function readNumber(root: DdfElement, sequence: string | undefined): AlertNumber {
  const [epoch, id, start] = ['Epoch', 'Run', 'Start'].map((tag) => textOf(root, tag));
  if (sequence === undefined || !/^\d{1,15}$/.test(sequence))
    throw new PosternError('malformed', 'an alert has a number in Seq');
  if (epoch !== undefined && !isEpoch(epoch))
    throw new PosternError('malformed', 'an epoch has at most 32 letters and digits');
  const isRun = isEpoch(id) && /^\d{1,15}$/.test(start ?? '');
  return {
    ...(epoch !== undefined && { epoch }),
    sequence: Number(sequence),
    ...(isRun && { run: { id, start: Number(start) } }),
  };
}
