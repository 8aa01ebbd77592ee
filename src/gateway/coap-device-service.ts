import { persistently } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { GatewayMode } from '../mo/device-record.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';
import type { GatewayConfig } from './config.ts';
import type { DeviceListener, DeviceSignals } from './device-signals.ts';
import { AdaptedDevices } from './modes/adapted-devices.ts';
import { CoapAdapter } from './modes/coap-adapter.ts';
import { isAdapted } from './modes/device-management.ts';
import type { Manage } from './modes/waiting-work.ts';
import type { Arrivals } from './southbound/arrivals.ts';
import type { Associations } from './southbound/associations.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import { type Finding, missing, unproven } from './southbound/presence.ts';
import type { Inventory } from './store/inventory.ts';

export interface CoapDeviceServiceParts {
  readonly settings: NonNullable<GatewayConfig['coap-devices']>;
  readonly inventory: Inventory;
  readonly locator: Pick<DeviceLocator, 'call'>;
  readonly arrivals: Pick<Arrivals, 'lastOf'>;
  readonly associations: Pick<Associations, 'attach' | 'detach'>;
  readonly signals: DeviceSignals;
  readonly clock: Clock;
  readonly events: Events;
}

/** What log and `postern status` say of plain CoAP devices. */
export const coapDeviceWarning =
  'plain CoAP devices prove nothing; whoever is at their addresses is taken for them';

/**
 * Devices that speak plain CoAP, and are attached by configuration. Each is attached when it has answered at its address for
 * the first time. Nothing proves a device, so its answers give it no rights at this gateway.
 */
export class CoapDeviceService implements AsyncDisposable, DeviceListener {
  readonly #parts: CoapDeviceServiceParts;
  readonly #adapter: CoapAdapter;
  readonly #devices: AdaptedDevices;
  /** URIs of the devices, by ID. */
  readonly #uris: ReadonlyMap<string, string>;
  #attaching: Promise<unknown> = Promise.resolve();

  constructor(parts: CoapDeviceServiceParts) {
    this.#parts = parts;
    const { settings, inventory, arrivals, locator, signals } = parts;
    this.#uris = new Map(settings.device.map(({ id, uri }) => [id, uri]));
    this.#adapter = new CoapAdapter({
      isAttached: (deviceId) => this.#uris.has(deviceId) && isAdapted(inventory, deviceId, 'CoAP'),
      lastHeard: (deviceId) => arrivals.lastOf(deviceId),
      // Without its address, from which anybody could write: no request counts as one of the device.
      answered: (deviceId) => signals.heard(deviceId, undefined),
      call: async (deviceId, request) => {
        const { host, port, path } = parseCoapUri(this.#uris.get(deviceId) ?? '');
        return await locator.call(host, port, { ...request, path: [...path, ...request.path] });
      },
    });
    this.#devices = new AdaptedDevices(this.#adapter, parts);
  }

  /** Attaches the devices that are listed, each when it answers. Those that are not listed any more have left. */
  start(): void {
    const { inventory, associations, events, clock } = this.#parts;
    events.emit('adaptation.insecure', { security: coapDeviceWarning });
    for (const { deviceId } of [...inventory.values()])
      if (isAdapted(inventory, deviceId, 'CoAP') && !this.#uris.has(deviceId))
        associations.detach(deviceId, 'left');
    const { signal } = this.#devices;
    const attach = (deviceId: string) =>
      persistently({ clock, events }, 'registration', () => this.#attach(deviceId), signal);
    this.#attaching = Promise.all([...this.#uris.keys()].map(attach));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#devices[Symbol.asyncDispose]();
    await this.#attaching;
  }

  get manage(): Manage {
    return this.#devices.manage;
  }

  /** Asks a device whether it is there. Never rejects. */
  async ask(deviceId: string): Promise<Finding> {
    if (!this.#uris.has(deviceId)) return missing('it is not listed in coap-devices');
    return await this.#adapter.resources(deviceId, this.#devices.signal).then(
      () => unproven,
      ({ message }: PosternError) => missing(message),
    );
  }

  heard(deviceId: string): void {
    this.#devices.heard(deviceId);
  }

  detached(deviceId: string): void {
    this.#devices.detached(deviceId);
  }

  /** @throws {PosternError} when it does not answer; it is tried again */
  async #attach(deviceId: string): Promise<void> {
    const { inventory, associations } = this.#parts;
    const record = inventory.get(deviceId);
    if (record && record.protocol !== 'CoAP')
      throw new PosternError('conflict', `${deviceId} is attached as a device of ${record.protocol}`);
    const uri = this.#uris.get(deviceId) ?? '';
    const { signal } = this.#devices;
    const resources = await this.#adapter.resources(deviceId, signal).catch((cause: PosternError) => {
      throw new PosternError(cause.code, `${deviceId} at ${uri}: ${cause.message}`, { cause });
    });
    associations.attach({
      deviceId,
      mode: GatewayMode.Adaptation,
      origin: 'manual',
      protocol: 'CoAP',
      address: uri,
      isGateway: false,
      objects: resources.map((path) => `/${path}`).join(' '),
    });
  }
}
