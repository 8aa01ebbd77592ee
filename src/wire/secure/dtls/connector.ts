import { PosternError } from '../../../base/errors.ts';
import type { Place } from './association.ts';
import { keyOf } from './association-table.ts';
import { ClientHandshake, type ClientSettings } from './client-handshake.ts';
import type { Established, Handshake } from './handshake.ts';
import type { Surroundings } from './surroundings.ts';

/** Begins associations as client. */
export class Connector {
  readonly #surroundings: Surroundings;
  readonly #limit: number;
  /** By remote. */
  readonly #running = new Map<string, { handshake: Handshake; reject: (error: PosternError) => void }>();
  #stopped = false;

  /** @param limit most handshakes at a time */
  constructor(surroundings: Surroundings, limit: number) {
    this.#surroundings = surroundings;
    this.#limit = limit;
  }

  /** Number of handshakes that run. */
  get size(): number {
    return this.#running.size;
  }

  /** The handshake that runs with a remote. */
  at(remote: string): Handshake | undefined {
    return this.#running.get(remote)?.handshake;
  }

  /**
   * Shakes hands with a server. Resolves when it has proved that it has the same key. `opened` is called before that, at once.
   * @throws {PosternError} `timeout` when the server does not answer, `forbidden` when it refuses, `conflict` while another
   *   handshake with it runs, `full` when too many run, `unavailable` when the endpoint stops
   */
  connect(
    place: Place,
    settings: ClientSettings,
    opened: (established: Established) => void,
  ): Promise<Established> {
    const { promise, resolve, reject } = Promise.withResolvers<Established>();
    const remote = keyOf(place);
    const obstacle = this.#obstacle(remote);
    if (obstacle) {
      reject(obstacle);
      return promise;
    }
    const handshake = new ClientHandshake(
      {
        ...this.#surroundings,
        place,
        send: (datagram) => this.#surroundings.send(datagram, place),
        done: (established) => {
          this.#running.delete(remote);
          opened(established);
          resolve(established);
        },
        failed: (reason, isSilent) => {
          this.#running.delete(remote);
          reject(new PosternError(isSilent ? 'timeout' : 'forbidden', reason));
        },
      },
      settings,
    );
    this.#running.set(remote, { handshake, reject });
    return promise;
  }

  /** Ends all handshakes, with `unavailable`. */
  stop(): void {
    this.#stopped = true;
    for (const { handshake, reject } of this.#running.values()) {
      handshake.stop();
      reject(new PosternError('unavailable', 'the DTLS endpoint stopped'));
    }
    this.#running.clear();
  }

  #obstacle(remote: string): PosternError | undefined {
    if (this.#stopped) return new PosternError('unavailable', 'the DTLS endpoint stopped');
    if (this.#running.has(remote)) return new PosternError('conflict', 'a handshake runs already');
    if (this.#running.size >= this.#limit) return new PosternError('full', 'no room for a handshake');
    return undefined;
  }
}
