export const MAGIC: string;
export const HEADER: number;
export const ENTRY: number;
export function pack(files: [string, Buffer][]): Buffer;
