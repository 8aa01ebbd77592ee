import { PosternError } from '../../base/errors.ts';
import { FumoResult, FumoState } from '../../mo/fumo.ts';
import { FirmwareResource, FirmwareResult, FirmwareState } from '../../wire/lwm2m/objects.ts';
import { type Path, pathText } from '../../wire/lwm2m/path.ts';
import type { Entry, Value } from '../../wire/lwm2m/resource.ts';

/** FUMO result codes (OMA FUMO 1.0, section 8.2) by LwM2M Update Result. */
const results: readonly number[] = [
  FumoResult.Failed,
  FumoResult.Ok,
  FumoResult.NoRoom,
  FumoResult.NoRoom,
  FumoResult.NetworkFailed,
  FumoResult.Corrupt,
  FumoResult.NotAcceptable,
  FumoResult.BadUrl,
  FumoResult.Failed,
  FumoResult.BadUrl,
  FumoResult.Cancelled,
];

/** What a client says of its update. */
export interface Said {
  readonly state: number;
  readonly result: number;
  readonly delivery: number;
  /** Codes of the protocols by which it downloads. Empty when it does not say. */
  readonly protocols: readonly number[];
}

/**
 * Reads what a client says in the object Firmware Update.
 * @throws {PosternError} `malformed`
 */
export function saidBy(entries: readonly Entry[]): Said {
  const values = (id: number) =>
    entries.filter(({ path }) => path[2] === id).map(({ path, value }) => numberIn(path, value));
  const [state = 0] = values(FirmwareResource.State);
  const [result = 0] = values(FirmwareResource.Result);
  const [delivery = 0] = values(FirmwareResource.Delivery);
  return { state, result, delivery, protocols: values(FirmwareResource.Protocols) };
}

/** An update that failed leaves the package, or does not. A client that defers it has not failed. */
export const hasFailed = ({ state, result }: Said): boolean =>
  (state === FirmwareState.Idle || state === FirmwareState.Downloaded) &&
  result > FirmwareResult.Success &&
  result !== FirmwareResult.Deferred;

/** Whether a client has a package. */
export const isDownloaded = ({ state }: Said): boolean => state === FirmwareState.Downloaded;
/** Whether a client tells of a success that is not that of the package which it has. */
export const isStale = ({ state, result }: Said): boolean =>
  result === FirmwareResult.Success && state !== FirmwareState.Idle;
/** Whether a client has a package, and has not heard that it should install it. */
export const isUninstalled = ({ state, result }: Said): boolean =>
  state === FirmwareState.Downloaded && result === FirmwareResult.None;

/** Result code of FUMO for an Update Result. */
export const resultOf = (result: number): number => results[result] ?? FumoResult.Failed;

/** FUMO states by LwM2M State. */
const states: Readonly<Record<number, number>> = {
  [FirmwareState.Downloading]: FumoState.Downloading,
  [FirmwareState.Downloaded]: FumoState.Downloaded,
  [FirmwareState.Updating]: FumoState.Updating,
};

/** State of FUMO for what a client says. */
export function stateOf(said: Said): number {
  const { state, result } = said;
  if (state === FirmwareState.Downloaded && hasFailed(said)) return FumoState.FailedWithData;
  if (state !== FirmwareState.Idle) return states[state] ?? FumoState.Idle;
  if (result === FirmwareResult.None) return FumoState.Idle;
  if (result === FirmwareResult.Success) return FumoState.DoneWithoutData;
  return results[result] === FumoResult.Failed ? FumoState.FailedWithoutData : FumoState.DownloadFailed;
}

/** @throws {PosternError} `malformed` for what is no whole number */
function numberIn(path: Path, value: Value): number {
  const number = value instanceof Uint8Array ? Number.NaN : Number(value);
  if (!Number.isInteger(number)) throw new PosternError('malformed', `${pathText(path)} is no whole number`);
  return number;
}
