/**
 * Partitions of the disk in their order, with sizes in MiB. At the first boot the board adds `data` in the rest. U-Boot reads boot-a,
 * boot-b and recovery as a whole. On the smallest board, with 128 MiB, it has 30 MiB for that (`addresses.fit`).
 */
export const partitions = [
  { name: 'state-1', size: 1 },
  { name: 'state-2', size: 1 },
  { name: 'config', size: 16 },
  { name: 'recovery', size: 28 },
  { name: 'boot-a', size: 24 },
  { name: 'root-a', size: 96 },
  { name: 'boot-b', size: 24 },
  { name: 'root-b', size: 96 },
] as const;
export type PartitionName = (typeof partitions)[number]['name'];

export const mebibyte = 1024 * 1024;
/**
 * MiB before the first partition, for the partition table and for boot loaders outside of partitions; as many follow the
 * last partition.
 */
const margin = 4;

/** Offset of a partition in MiB. */
export function startOf(name: PartitionName): number {
  let at: number = margin;
  for (const one of partitions) {
    if (one.name === name) return at;
    at += one.size;
  }
  throw new Error(`no partition ${name}`);
}

/** Size of a partition in MiB. */
export const sizeOf = (name: PartitionName): number => partitions.find((one) => one.name === name)!.size;

/** Size of the disk image in MiB. */
export const diskSize = partitions.reduce((sum, { size }) => sum + size, 2 * margin);
