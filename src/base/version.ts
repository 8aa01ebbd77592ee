/** Version of this software, which it reports to its peers. The bundle has the version of package.json built in. */
export const softwareVersion: string = process.env.POSTERN_VERSION ?? '0.1.0';
