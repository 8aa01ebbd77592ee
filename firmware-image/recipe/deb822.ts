/** Records of Debian's control files. The lines of a field with several lines are joined by line ends. [deb822(5)] */
export const recordsIn = (text: string): Readonly<Record<string, string>>[] =>
  text
    .split(/\n(?:\s*\n)+/)
    .filter((record) => record.trim() !== '')
    .map((record) =>
      Object.fromEntries(
        [...record.matchAll(/^([^\s:]+):[ \t]*(.*(?:\n[ \t].*)*)/gm)].map(([, name = '', value = '']) => [
          name,
          value.trim(),
        ]),
      ),
    );

/** The files of a source package with their digests, from its description. Its signature is around the text. */
export function filesOf(description: string): { name: string; sha256: string }[] {
  const record = recordsIn(description).find((one) => one['Checksums-Sha256'] !== undefined);
  const lines = record?.['Checksums-Sha256']?.split('\n') ?? [];
  return lines.map((line) => {
    const [sha256 = '', , name = ''] = line.trim().split(/\s+/);
    return { name, sha256 };
  });
}
