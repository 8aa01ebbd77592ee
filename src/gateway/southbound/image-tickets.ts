import type { Clock, Monotonic } from '../../base/clock.ts';
import { hashedName } from '../../base/hashed-name.ts';
import type { Sealer } from '../../base/sealing.ts';
import type { DeviceRecords } from '../../mo/device-record.ts';
import type { CoapRequest } from '../../wire/coap/message.ts';
import { imagePath, indexedBy, type ServedImage, versionPath } from './image-resource.ts';

export interface ImageTicketsParts {
  readonly sealing: Sealer;
  /** Number of this start of the gateway. */
  readonly start: number;
  readonly devices: Pick<DeviceRecords, 'named'>;
  /** Finds an image that is ready, by its name. */
  readonly ready: (name: string) => ServedImage | undefined;
  readonly clock: Clock;
}

/** Seconds for which a ticket is valid. */
const validFor = 86_400;

/**
 * Tickets for downloads, in the query of their URIs. A client may download from another UDP port than it registered from, where it
 * has proved nothing. A ticket is for one device and one version of an image. The gateway keeps no list of them: a ticket is
 * sealed by the key of the state, and outlasts one restart. Its age counts without the wall clock, which may jump. A ticket of
 * the start before is as old as this start.
 */
export class ImageTickets {
  readonly #parts: ImageTicketsParts;
  readonly #begun: Monotonic;

  constructor(parts: ImageTicketsParts) {
    this.#parts = parts;
    this.#begun = parts.clock.now();
  }

  get #seconds(): number {
    return Math.floor((this.#parts.clock.now() - this.#begun) / 1000);
  }

  /**
   * Path and query by which a device gets one version of an image.
   * @throws {PosternError} `storage` when the platform has no key and stores none
   */
  pathFor(deviceId: string, name: string, hash: string): string {
    const { sealing, start } = this.#parts;
    const path = versionPath(name, hash);
    const content = Buffer.from(`${hashedName(deviceId)} ${start} ${this.#seconds}`);
    return `${path}&t=${sealing.seal(content, path).toString('base64url')}`;
  }

  /** The attached device whose valid ticket a request for an image, or for its index, has. */
  deviceOf({ path: [, name = ''], query }: CoapRequest): string | undefined {
    const holder = (image: string | undefined) =>
      image === undefined ? undefined : this.holderOf(`${imagePath(image)}?${query.join('&')}`);
    return query.length === 2 ? (holder(name) ?? holder(indexedBy(name))) : undefined;
  }

  /** The attached device that has a valid ticket for a path and query as `pathFor` makes them. */
  holderOf(uri: string): string | undefined {
    const { sealing, start, devices } = this.#parts;
    const [path = '', ticket = ''] = uri.split('&t=');
    const content = sealing.open(Buffer.from(ticket, 'base64url'), path);
    const [name = '', since, issuedAt] = String(content ?? '').split(' ');
    const begun = Number(since) === start ? Number(issuedAt) : Number(since) === start - 1 ? 0 : Number.NaN;
    return this.#seconds - begun <= validFor ? devices.named(name)?.deviceId : undefined;
  }

  /**
   * The image for which a path and query have a valid ticket, if it still has the version that the ticket is for.
   * @param deviceId holder that the ticket must have; anyone when absent
   */
  imageOf(uri: string, deviceId?: string): ServedImage | undefined {
    const holder = this.holderOf(uri);
    if (holder === undefined || (deviceId !== undefined && holder !== deviceId)) return undefined;
    const name = decodeURIComponent(uri.split(/[/?]/)[2] ?? '');
    const image = this.#parts.ready(name);
    return image && uri.startsWith(`${versionPath(name, image.hash)}&`) ? image : undefined;
  }

  /** What a path and query have a valid ticket for: an image, or its index. */
  async served(uri: string): Promise<ServedImage | undefined> {
    return this.imageOf(uri) ?? (await this.imageOf(indexedBy(uri) ?? '')?.index?.());
  }
}
