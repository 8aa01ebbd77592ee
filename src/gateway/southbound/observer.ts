/** Conditions of notifications (LwM2M core 1.2, section 5.1.2). `pmin` and `pmax` are in seconds. */
export interface ObservationAttributes {
  readonly pmin?: number;
  readonly pmax?: number;
  readonly gt?: number;
  readonly lt?: number;
  readonly st?: number;
}

/** Most paths that are observed of one client, over all its wishes. Wishes beyond are refused. */
export const observationBounds = { paths: 64 } as const;

/** What is to be observed of one client. */
export interface ObservationWish {
  /** Chosen by the caller, unique for each client. */
  readonly name: string;
  /** Such as `/3303/0/5700`. */
  readonly paths: readonly string[];
  readonly attributes: ObservationAttributes;
}

/**
 * `observing`: the client has confirmed all paths. `waiting`: for a client that is not registered, asleep or silent, or for
 * its answer. `refused`: some path is refused; `reason` says which and why, and the others are observed.
 */
export type ObservationState =
  | { readonly state: 'observing' | 'waiting' }
  | { readonly state: 'refused'; readonly reason: string };

/** One value that a client has sent. */
export interface ReportedValue {
  /** Such as `/3303/0/5700`. */
  readonly path: string;
  readonly value: string | number | bigint | boolean | Uint8Array;
  /** Milliseconds since 1970: of the client where it names a time, otherwise of the arrival. */
  readonly at: number;
}

/** Observes resources of clients. Wishes are kept in memory only: they are said again after a restart. */
export interface Observer {
  /**
   * Sets the whole of what is wished of a client, instead of what was wished before. It is set up again after each
   * registration of the client. Idempotent.
   */
  wish(device: string, wishes: readonly ObservationWish[]): void;
  /** State of the wish of this name; `undefined` when there is none. */
  stateOf(device: string, name: string): ObservationState | undefined;
  /**
   * Called once for each notification, with the name of its wish; the name is `undefined` for values that the client sent
   * unasked (Send). Given at construction.
   */
  readonly values: (device: string, name: string | undefined, values: readonly ReportedValue[]) => void;
}
