import assert from 'node:assert/strict';
import { basename, join } from 'node:path';
import { before, describe, test } from 'node:test';
import { imx8mMini } from '../../firmware-image/boards/imx8m-mini.ts';
import { raspberryPi4 } from '../../firmware-image/boards/raspberry-pi-4.ts';
import { moduleClosure } from '../../firmware-image/recipe/closure.ts';
import { debianPackages } from '../../firmware-image/recipe/debian.ts';
import { treeSource } from '../../firmware-image/recipe/device-tree.ts';
import { type Kernel, kernelOf } from '../../firmware-image/recipe/kernel.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import { skipImages } from './images.ts';

/** A node of a device tree. */
interface TreeNode {
  readonly path: string;
  readonly parent: TreeNode | undefined;
  /** Values by name, as in the source. */
  readonly properties: Map<string, string>;
}

/** Reads the nodes of a device tree from the source that `dtc` writes. */
function nodesOf(source: string): TreeNode[] {
  const nodes: TreeNode[] = [];
  let at: TreeNode | undefined;
  for (const line of source.split('\n').map((text) => text.trim())) {
    const [, name] = /^([^\s{]+) \{$/.exec(line) ?? [];
    const [, key = line.replace(/;$/, ''), value = ''] = /^(\S+) = (.*);$/.exec(line) ?? [];
    if (name !== undefined) {
      at = { path: at ? `${at.path}/${name}` : '', parent: at, properties: new Map() };
      nodes.push(at);
    } else if (line === '};') at = at?.parent;
    else if (line !== '') at?.properties.set(key, value);
  }
  return nodes;
}

const texts = (value = ''): string[] =>
  [...value.matchAll(/"([^"]*)"/g)].flatMap(([, one = '']) => one.split('\\0'));
const cells = (value = ''): number[] => [...value.matchAll(/0x[0-9a-f]+/g)].map(([one]) => Number(one));

/**
 * Properties that refer to suppliers, each with the supplier's property that tells how many cells follow its phandle. Without
 * one, no cells follow. [Devicetree Specification]
 */
const argumentCells: readonly (readonly [property: RegExp, count: string | undefined])[] = [
  [/-supply$|^pinctrl-\d+$|^nvmem-cells$/, undefined],
  [/^clocks$/, '#clock-cells'],
  [/^dmas$/, '#dma-cells'],
  [/^resets$/, '#reset-cells'],
  [/^mboxes$/, '#mbox-cells'],
  [/^power-domains$/, '#power-domain-cells'],
  [/gpios?$/, '#gpio-cells'],
];

/** The devices that the kernel needs before it starts this one, direct and indirect. */
function suppliersOf(device: TreeNode, nodes: readonly TreeNode[]): Set<TreeNode> {
  const byHandle = new Map(nodes.map((node) => [cells(node.properties.get('phandle'))[0], node]));
  const found = new Set<TreeNode>();
  const follow = (node: TreeNode): void => {
    for (const [property, value] of node.properties) {
      const kind = argumentCells.find(([pattern]) => pattern.test(property));
      if (!kind) continue;
      const given = cells(value);
      for (let index = 0; index < given.length; ) {
        const target = byHandle.get(given[index]);
        assert.ok(target, `${node.path}: ${property} refers to no node`);
        const [count = 0] = kind[1] === undefined ? [] : cells(target.properties.get(kind[1]));
        index += 1 + count;
        // A group of pins, or a power domain, belongs to the device whose node surrounds it.
        let owner: TreeNode | undefined = target;
        while (owner && !owner.properties.has('compatible')) owner = owner.parent;
        if (!owner || owner === device || found.has(owner)) continue;
        found.add(owner);
        follow(owner);
      }
    }
  };
  follow(device);
  return found;
}

/** Files of kernel modules by the `compatible` values of the devices that they drive. Built-in drivers are not included. */
function driversIn(folder: string): Map<string, string> {
  const pattern = 'alias=of:N\\*T\\*C[^\\x00]*';
  const found = run('grep', ['-raoP', '--include=*.ko', pattern, join(folder, 'kernel/drivers')]);
  return new Map(
    [...found.matchAll(/^(\S+\.ko):alias=of:N\*T\*C(.*)$/gm)].map(([, file = '', device = '']) => [
      device,
      basename(file),
    ]),
  );
}

/** These boards are not emulated. Instead their device trees are read, which tell what the disk needs. */
describe('boards whose images are built but not booted', { skip: skipImages }, () => {
  let kernel: Kernel;
  let drivers: Map<string, string>;

  before(() => {
    kernel = kernelOf(debianPackages(['linux-image-arm64']));
    drivers = driversIn(kernel.modules);
  });

  for (const [board, tree, disk] of [
    [raspberryPi4, 'broadcom/bcm2711-rpi-4-b.dtb', 'brcm,bcm2711-emmc2'],
    [raspberryPi4, 'broadcom/bcm2711-rpi-cm4-io.dtb', 'brcm,bcm2711-emmc2'],
    [imx8mMini, 'freescale/imx8mm-evk.dtb', 'fsl,imx8mm-usdhc'],
  ] as const)
    test(`${board.description}: the initramfs loads drivers for the disk of ${basename(tree)} and its suppliers`, () => {
      const nodes = nodesOf(treeSource(join(kernel.deviceTrees, tree)));
      const loaded = moduleClosure(kernel.modules, board.modules.initramfs).map((one) => basename(one.file));
      const controllers = nodes.filter(
        ({ properties }) =>
          texts(properties.get('compatible')).includes(disk) &&
          texts(properties.get('status'))[0] !== 'disabled',
      );
      assert.ok(controllers.length > 0, `${tree} has no ${disk}`);
      for (const controller of controllers)
        for (const device of [controller, ...suppliersOf(controller, nodes)]) {
          const driver = texts(device.properties.get('compatible'))
            .map((one) => drivers.get(one))
            .find((one) => one !== undefined);
          if (driver !== undefined)
            assert.ok(loaded.includes(driver), `${device.path} needs ${driver}, which is not loaded`);
        }
    });
});
