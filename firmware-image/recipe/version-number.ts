/** A version as a number that the boot loader can compare: `1.2.3` is 0x010203. */
export function versionNumber(version: string): string {
  const [, ...parts] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? [];
  const [major = 0, minor = 0, patch = 0] = parts.map(Number);
  if (parts.length === 0 || major > 127 || minor > 255 || patch > 255)
    throw new Error(
      `version ${version}: three numbers such as 1.2.3 are wanted, of at most 127, 255 and 255`,
    );
  return `0x${((major << 16) | (minor << 8) | patch).toString(16).padStart(6, '0')}`;
}
