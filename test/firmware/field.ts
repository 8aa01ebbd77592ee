import { type Hardware, virt } from '../../firmware-image/qemu/hardware.ts';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Site } from '../journeys/site.ts';
import { type Broker, startAedes } from '../peers/brokers.ts';
import { Board, type BoardParts, bundleServer } from './board.ts';

type BundleServer = Awaited<ReturnType<typeof bundleServer>>;

export interface FieldParts extends Pick<BoardParts, 'devices' | 'update' | 'timeServers'> {
  /** What the board is flashed with. */
  readonly image: BuiltImage;
  /** QEMU's own board, by default. */
  readonly hardware?: Hardware;
  /** Files that it may load, by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** A board at a site, the broker and the DM server that it reports to, and a server that has updates. */
export class Field implements AsyncDisposable {
  readonly broker: Broker;
  readonly site: Site;
  readonly headend: Headend;
  readonly board: Board;
  readonly #files: BundleServer;

  private constructor(parts: Pick<Field, 'broker' | 'site' | 'headend' | 'board'>, files: BundleServer) {
    this.broker = parts.broker;
    this.site = parts.site;
    this.headend = parts.headend;
    this.board = parts.board;
    this.#files = files;
  }

  static async prepare({ image, hardware = virt(image), files, ...rest }: FieldParts): Promise<Field> {
    const broker = await startAedes();
    const site = new Site(broker.url);
    const headend = await site.headend([]);
    const server = await bundleServer(files);
    const board = await Board.flash({
      disk: image.disk!,
      hardware,
      brokerUrl: broker.url,
      updateAuthority: server.certificate,
      ...rest,
    });
    return new Field({ broker, site, headend, board }, server);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.#files);
    stack.use(this.broker);
    stack.use(this.site);
    stack.use(this.board);
  }

  /** Orders the update from a file of the server; answers with the statuses. */
  async update(file: string, correlator: string): Promise<number[]> {
    return await this.execute('DownloadAndUpdate', correlator, this.#files.url(file));
  }

  /** Has the gateway fetch a file of the server into its Image Inventory. */
  async stage(file: string): Promise<void> {
    const { correlator } = await this.headend.stageImage('gw-1', {
      name: file,
      version: '1',
      url: this.#files.url(file),
    });
    await this.site.headendEvents.until('alert.image-operation', { correlator });
  }

  async execute(operation: string, correlator: string, url?: string): Promise<number[]> {
    const outcomes = await this.headend.manage('gw-1', [
      ...(url === undefined
        ? []
        : [{ name: 'Replace' as const, uri: `./FwUpdate/${operation}/PkgURL`, data: url }]),
      { name: 'Exec', uri: `./FwUpdate/${operation}`, correlator },
    ]);
    return outcomes.map(({ status }) => status);
  }

  /** What the DM server hears that an update came to. */
  async told(correlator: string): Promise<unknown> {
    const { fields } = await this.site.headendEvents.until('alert.firmware-update', { correlator });
    return fields.result;
  }

  async attach(deviceId: string): Promise<void> {
    const device = this.site.device(deviceId, this.board, { factory: true });
    await device.start();
    await device.attached;
  }

  /** Version of the firmware and names of the devices, as the DM server reads them. */
  async seen(): Promise<{ version: unknown; devices: unknown }> {
    const [version, devices] = await this.headend.manage('gw-1', [
      { name: 'Get', uri: './DevDetail/FwV' },
      { name: 'Get', uri: './GwDeviceInventory/Records' },
    ]);
    return { version: version?.results[0]?.data, devices: devices?.results[0]?.data };
  }
}
