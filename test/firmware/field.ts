import { type Hardware, virt } from '../../firmware-image/qemu/hardware.ts';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Site } from '../journeys/site.ts';
import { type Broker, startAedes } from '../peers/brokers.ts';
import { Board, type BoardParts, bundleServer, patience } from './board.ts';

type BundleServer = Awaited<ReturnType<typeof bundleServer>>;

/** What a `Field` is made of. */
export interface FieldParts extends Pick<BoardParts, 'devices' | 'update' | 'timeServers' | 'network'> {
  /** Image with which the board is flashed. */
  readonly image: BuiltImage;
  /** Default: QEMU's own machine `virt`. */
  readonly hardware?: Hardware;
  /** Name of the file on the update server that the recovery system fetches. */
  readonly recoveryFile?: string;
  /** Paths of the files on the update server, by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** An emulated board with its surroundings: a broker, a DM server, devices, and a server with updates. */
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

  static async prepare({
    image,
    hardware = virt(image),
    files,
    recoveryFile,
    ...rest
  }: FieldParts): Promise<Field> {
    const broker = await startAedes();
    const site = new Site(broker.url);
    const headend = await site.headend([]);
    const server = await bundleServer(files);
    const board = await Board.flash({
      disk: image.disk!,
      hardware,
      brokerUrl: broker.url,
      updateAuthority: server.certificate,
      ...(recoveryFile !== undefined && { recoveryUrl: server.url(recoveryFile) }),
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

  /** Orders an update from a file of the update server. Returns the statuses of the commands. */
  async update(file: string, correlator: string): Promise<number[]> {
    return await this.execute('DownloadAndUpdate', correlator, this.#files.url(file));
  }

  /** From now on the update server has this file at the path `name`. */
  serve(name: string, file: string): void {
    this.#files.serve(name, file);
  }

  /** Makes the gateway download a file of the update server into its Image Inventory. */
  async stage(file: string): Promise<void> {
    const { correlator } = await this.headend.stageImage('gw-1', {
      name: file,
      version: '1',
      url: this.#files.url(file),
    });
    await this.site.headendEvents.until('alert.image-operation', { correlator });
  }

  /** Executes an operation of FUMO, after setting its PkgURL if there is a URL. Returns the statuses of the commands. */
  async execute(operation: string, correlator: string, url?: string): Promise<number[]> {
    const outcomes = await this.headend.manage('gw-1', [
      ...(url === undefined
        ? []
        : [{ name: 'Replace' as const, uri: `./FwUpdate/${operation}/PkgURL`, data: url }]),
      { name: 'Exec', uri: `./FwUpdate/${operation}`, correlator },
    ]);
    return outcomes.map(({ status }) => status);
  }

  /** Resolves with the result that the DM server gets for an update. */
  async told(correlator: string): Promise<unknown> {
    const { fields } = await this.site.headendEvents.until('alert.firmware-update', { correlator });
    return fields.result;
  }

  /** The link breaks in the middle of the next range of an update. */
  breakNext(): void {
    this.#files.breakNext();
  }

  /** Bytes that the update server has sent. */
  get downloaded(): number {
    return this.#files.sent();
  }

  /** Starts a device at the board and waits until it is attached. */
  async attach(deviceId: string): Promise<void> {
    const device = this.site.device(deviceId, this.board, { factory: true });
    await device.start();
    await device.attached;
  }

  /** Has the board run with one device until it has its second copy, and cuts its power. */
  async runOnce(deviceId: string): Promise<void> {
    const kept = this.board.machine.says(/second copy .* is written/, patience.start);
    await this.board.start();
    await this.attach(deviceId);
    await this.site.headendEvents.until('alert.device-attach', { device: deviceId });
    await kept;
    await this.board.machine.cutPower();
  }

  /** Reads by the DM server the version of the firmware, and the names of the devices separated by slashes. */
  async seen(): Promise<{ version: unknown; devices: unknown }> {
    const [version, devices] = await this.headend.manage('gw-1', [
      { name: 'Get', uri: './DevDetail/FwV' },
      { name: 'Get', uri: './GwDeviceInventory/Records' },
    ]);
    return { version: version?.results[0]?.data, devices: devices?.results[0]?.data };
  }
}
