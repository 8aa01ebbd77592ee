import type { Clock, Monotonic } from '../../base/clock.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus } from '../../dm/status.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import { LwM2mReporting } from '../southbound/lwm2m-reporting.ts';
import type { Registration } from '../store/registrations.ts';
import { AdaptedClient } from './adapted-client.ts';
import { AdaptedDevices } from './adapted-devices.ts';
import { AdaptedFirmware, type AdaptedFirmwareParts } from './adapted-firmware.ts';
import type { AdaptedPatience } from './adapted-patience.ts';
import type { AdaptedReaderParts } from './adapted-reader.ts';
import type { Manage } from './waiting-work.ts';

export interface AdaptationModeParts {
  /** The registration of a client that is attached here. */
  readonly clientOf: (deviceId: string) => Registration | undefined;
  /** When a client was heard last. */
  readonly lastHeard: (deviceId: string) => Monotonic;
  /** Whether a client has been heard at its address since a time, or proves itself now. Never rejects. */
  readonly isThere: (deviceId: string, since: Monotonic, signal: AbortSignal) => Promise<boolean>;
  readonly calls: LwM2mCalls;
  /** Called when a firmware update that a client accepted has ended. */
  readonly updated: AdaptedFirmwareParts['ended'];
  readonly succeeded: AdaptedFirmwareParts['succeeded'];
  readonly imageAt: AdaptedFirmwareParts['imageAt'];
  readonly httpUriOf: AdaptedFirmwareParts['httpUriOf'];
  readonly updates: AdaptedFirmwareParts['updates'];
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Adaptation mode (GwMO) for LwM2M clients. In place of a DM session, the gateway sends LwM2M requests to the client. A client in
 * queue mode sleeps.
 */
export class AdaptationMode implements AsyncDisposable {
  readonly #devices: AdaptedDevices;
  readonly #firmware: AdaptedFirmware;
  readonly #calls: LwM2mCalls;
  readonly #reporting: LwM2mReporting;

  constructor(parts: AdaptationModeParts) {
    const { updated: ended, clientOf, calls, lastHeard, isThere, ...rest } = parts;
    this.#devices = new AdaptedDevices(
      {
        sleeps: (deviceId) => clientOf(deviceId)?.queueMode,
        lastHeard,
        isThere,
        perform: async (deviceId, operation, patience) => {
          // The client may have left, or changed its address, since the operation before.
          const client = clientOf(deviceId);
          return client
            ? await new AdaptedClient(client, this.#adaptedBy(patience)).perform(operation)
            : { operation, status: DmStatus.NotFound, results: [] };
        },
        reads: async (deviceId, gets, patience) => {
          const client = clientOf(deviceId);
          return client && (await new AdaptedClient(client, this.#adaptedBy(patience)).reads(gets));
        },
      },
      parts,
    );
    const { signal } = this.#devices;
    this.#calls = calls;
    this.#reporting = new LwM2mReporting(calls);
    this.#firmware = new AdaptedFirmware({ ...rest, clientOf, calls, ended, signal });
  }

  #adaptedBy(patience: AdaptedPatience): AdaptedReaderParts {
    return { calls: this.#calls, reporting: this.#reporting, firmware: this.#firmware, patience };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#devices[Symbol.asyncDispose]();
    await this.#firmware.settled;
  }

  /** As `AdaptedFirmware.resume`. */
  resume(awaited: readonly string[]): void {
    this.#firmware.resume(awaited);
  }

  /** As `AdaptedDevices.heard`. */
  heard(deviceId: string): void {
    this.#devices.heard(deviceId);
  }

  /** As `AdaptedDevices.detached`. */
  detached(deviceId: string): void {
    this.#devices.detached(deviceId);
  }

  /** As `AdaptedDevices.manage`. */
  get manage(): Manage {
    return this.#devices.manage;
  }
}
