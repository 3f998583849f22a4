/** The picturebook: a closed world of small scenes in which every answer is known. */
export * from './answers.ts'
export * from './captions.ts'
export * from './categories.ts'
export * from './corpus.ts'
export * from './drawings.ts'
export { centerLabels, labelNames, partLabels, settingCount, textPicture } from './labels.ts'
export { thingsSaid } from './language.ts'
export * from './llava-json.ts'
export { mirrorExchange, mirrorScene } from './mirror.ts'
export * from './questions.ts'
export * from './rendering.ts'
export {
  type Box,
  countCategories,
  makeScene,
  type Scene,
  type SceneObject,
  type SceneOptions,
  type Setting,
} from './scene.ts'
export { shortAnswerPrompt } from './short-answers.ts'
export * from './splits.ts'
